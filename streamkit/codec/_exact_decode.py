"""The exact decoder: every rule of the format, in the order in which they apply.

It runs whenever a compiled decoder meets anything that it was not written for: corrupt input, but
also unknown fields, fields out of order or seen twice. What it accepts, what it refuses and what
comes out is what google.protobuf does.

A singular message that is seen more than once is merged. Merging two messages is the same as
decoding their bytes one after the other, so the pieces are collected and decoded once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import betterproto

from streamkit.codec._plan import UNSET, Field, MessagePlan, tags_of
from streamkit.codec._times import duration_from, timestamp_from
from streamkit.codec._wire import (
    DEPTH,
    Malformed,
    fixed_reader,
    fixed_size,
    integer_reader,
    length_at,
    skip,
    tag_at,
    varint_at,
    varints,
)
from streamkit.errors import DecodeError

__all__ = ["ExactDecoder"]

_M = TypeVar("_M", bound=betterproto.Message)

_SECONDS: Final = tags_of([Field("seconds", 1, "int64"), Field("nanos", 2, "int32")])


class ExactDecoder:
    """Decodes messages of every class; `ready` makes a class usable and returns its plan."""

    def __init__(self, ready: Callable[[type[betterproto.Message]], MessagePlan]) -> None:
        self._ready = ready
        self._wrappers = {
            kind: tags_of([Field("value", 1, kind)])
            for kind in ("bool", "bytes", "double", "float", "string")
            + ("int32", "int64", "uint32", "uint64", "enum")
        }
        # What a map's wrapper wraps is not known for floats: read either width.
        self._wrappers["double"] = self._wrappers["float"] | self._wrappers["double"]

    def decode(self, cls: type[_M], data: bytes, start: int = 0, end: int | None = None) -> _M:
        """Decode data[start:end]. Raises DecodeError with the reason and the field's path."""
        if type(data) is not bytes:
            data = bytes(data)
        if start or end is not None:
            data = data[start:end]
        plan = self._ready(cls)
        try:
            return self._message(plan, data, 0, len(data), DEPTH)
        except Malformed as bad:
            path = ".".join([plan.name, *reversed(bad.path)])
            raise DecodeError(bad.reason, path) from None

    def _message(self, plan: MessagePlan, buf: bytes, at: int, end: int, depth: int) -> Any:
        values, unknown = self._fields(plan.by_tag, plan.siblings, buf, at, end, depth)
        message = object.__new__(plan.cls)
        if unknown:
            values["_unknown_fields"] = b"".join(unknown)
        if values:
            vars(message).update(values)
        return message

    def _fields(
        self,
        by_tag: Mapping[int, Field],
        siblings: Mapping[str, tuple[str, ...]],
        buf: bytes,
        at: int,
        end: int,
        depth: int,
    ) -> tuple[dict[str, Any], list[bytes]]:
        values: dict[str, Any] = {}
        pieces: dict[Field, list[bytes]] = {}
        unknown: list[bytes] = []
        while at < end:
            start = at
            tag, at = tag_at(buf, at, end)
            field = by_tag.get(tag)
            if field is None:
                at = skip(buf, tag, at, end, depth)
                unknown.append(buf[start:at])
                continue
            try:
                if field.group:
                    for name in siblings[field.name]:
                        values.pop(name, None)
                        for other in [other for other in pieces if other.name == name]:
                            del pieces[other]
                if tag & 7 == 2:
                    at, stop = length_at(buf, at, end)
                    if field.kind in _MERGED and not field.repeated:
                        pieces.setdefault(field, []).append(buf[at:stop])
                    else:
                        self._delimited(field, values, buf, at, stop, depth)
                    at = stop
                else:
                    value, at = self._scalar(field, buf, at, end)
                    if field.repeated:
                        values.setdefault(field.name, []).append(value)
                    else:
                        values[field.name] = value
            except Malformed as bad:
                bad.path.append(_element(field, values))
                raise
        for field, parts in pieces.items():
            whole = parts[0] if len(parts) == 1 else b"".join(parts)
            try:
                values[field.name] = self.nested(field, whole, 0, len(whole), depth)
            except Malformed as bad:
                bad.path.append(field.name)
                raise
        return values, unknown

    def _scalar(self, field: Field, buf: bytes, at: int, end: int) -> tuple[Any, int]:
        if field.tag & 7 == 0:
            value, at = varint_at(buf, at, end)
            return integer_reader(field.kind, field.target)(value), at
        stop = at + fixed_size(field.kind)
        if stop > end:
            raise Malformed("the data is truncated")
        (value,) = fixed_reader(field.kind)(buf[at:stop])
        return value, stop

    def _delimited(
        self, field: Field, values: dict[str, Any], buf: bytes, at: int, stop: int, depth: int
    ) -> None:
        """One length-delimited value of a string, bytes, map or repeated field."""
        if field.kind == "map":
            key, value = self._entry(field, buf, at, stop, depth)
            values.setdefault(field.name, {})[key] = value
        elif field.packable:
            found = values.setdefault(field.name, [])
            if field.tag & 7 == 0:
                found.extend(map(integer_reader(field.kind, field.target), varints(buf[at:stop])))
            else:
                found.extend(fixed_reader(field.kind)(buf[at:stop]))
        else:
            if field.kind in _MERGED:
                value = self.nested(field, buf, at, stop, depth)
            else:
                value = _text(buf[at:stop]) if field.kind == "string" else buf[at:stop]
            if field.repeated:
                values.setdefault(field.name, []).append(value)
            else:
                values[field.name] = value

    def nested(self, field: Field, buf: bytes, at: int, end: int, depth: int) -> Any:
        """A message, or one of those that are shown as a value."""
        if depth == 0:
            raise Malformed("nested too deeply")
        depth -= 1
        if field.kind == "message":
            assert field.target is not None
            return self._message(self._ready(field.target), buf, at, end, depth)
        if field.kind == "wrapper":
            table = self._wrappers[field.wraps]
            found, _ = self._fields(table, {}, buf, at, end, depth)
            return found.get("value", next(iter(table.values())).default())
        found, _ = self._fields(_SECONDS, {}, buf, at, end, depth)
        make = timestamp_from if field.kind == "timestamp" else duration_from
        return make(found.get("seconds", 0), found.get("nanos", 0))

    def _entry(self, field: Field, buf: bytes, at: int, end: int, depth: int) -> tuple[Any, Any]:
        if depth == 0:
            raise Malformed("nested too deeply")
        key, value = field.key, field.value
        assert key is not None and value is not None
        entry, _ = self._fields(tags_of([key, value]), {}, buf, at, end, depth - 1)
        found = entry.get("value", UNSET)
        if found is UNSET:
            # A message that is missing is an empty one.
            empty = value.kind in _MERGED
            found = self.nested(value, b"", 0, 0, depth - 1) if empty else value.default()
        return entry.get("key", key.default()), found


_MERGED: Final = frozenset({"message", "timestamp", "duration", "wrapper"})


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("a string is not valid UTF-8") from None


def _element(field: Field, values: Mapping[str, Any]) -> str:
    """The last step of a path: the field, and which of its elements."""
    if field.repeated:
        return f"{field.name}[{len(values.get(field.name, ()))}]"
    return field.name
