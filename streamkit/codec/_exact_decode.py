"""The exact decoder: every rule of the format, in the order in which they apply.

It runs whenever a compiled decoder meets anything that it was not written for: corrupt input, but
also unknown fields, fields out of order or seen twice. What it accepts, what it refuses and what
comes out is what google.protobuf does.

A singular message that is seen more than once is merged: its pieces are read one after the other
into one state, which becomes the value at the end.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Final, TypeVar

import betterproto
from betterproto import _get_wrapper
from betterproto.lib.google.protobuf import Duration, Timestamp

from streamkit.codec._plan import UNSET, Field, MessagePlan, tags_of
from streamkit.codec._runs import Runs, repetitions
from streamkit.codec._tables import packed_reader
from streamkit.codec._times import duration_from, timestamp_from
from streamkit.codec._wire import (
    DEPTH,
    Malformed,
    any_tag_at,
    fixed_reader,
    fixed_size,
    integer_reader,
    length_at,
    skip,
    tag_at,
    varint,
    varint_at,
)
from streamkit.errors import DecodeError

__all__ = ["ExactDecoder"]

_M = TypeVar("_M", bound=betterproto.Message)

_Shape = tuple[Mapping[int, Field], Runs]
"""What is known of a message's fields: by tag, and long runs of them."""


def _shape(*fields: Field) -> _Shape:
    by_tag = tags_of(fields)
    return by_tag, Runs(by_tag)


_SECONDS: Final = _shape(Field("seconds", 1, "int64"), Field("nanos", 2, "int32"))


_WRAPPED: Final = (
    *("bool", "bytes", "double", "enum", "float", "string"),
    *("int32", "int64", "uint32", "uint64"),
)


class _State:
    """A message while it is read: its values, and the singular messages in it, read likewise."""

    __slots__ = ("chosen", "nested", "unknown", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.nested: dict[str, tuple[Field, _State]] = {}
        self.unknown: list[bytes] = []
        self.chosen: dict[str, str] = {}  # the member of each oneof that came last


class ExactDecoder:
    """Decodes messages of every class.

    `ready` makes a class usable and returns its plan; `write` encodes one field.
    """

    def __init__(
        self,
        ready: Callable[[type[betterproto.Message]], MessagePlan],
        write: Callable[[Field, Any], bytes],
    ) -> None:
        self._ready = ready
        self._write = write
        self._wrappers: dict[str, _Shape] = {
            kind: _shape(Field("value", 1, kind)) for kind in _WRAPPED
        }
        either = {**self._wrappers["double"][0], **self._wrappers["float"][0]}
        self._wrappers["any float"] = either, Runs(either)

    def decode(self, cls: type[_M], data: bytes, start: int = 0, end: int | None = None) -> _M:
        """Decode data[start:end]. Raises DecodeError with the reason and the field's path."""
        if type(data) is not bytes:
            data = bytes(data)
        if start or end is not None:
            data = data[start:end]
        plan = self._ready(cls)
        try:
            message: _M = self._message(plan, data, 0, len(data), DEPTH)
            return message
        except Malformed as bad:
            path = ".".join([plan.name, *reversed(bad.path)])
            raise DecodeError(bad.reason, path) from None

    def _message(self, plan: MessagePlan, buf: bytes, at: int, end: int, depth: int) -> Any:
        state = _State()
        self._fields((plan.by_tag, plan.runs), state, buf, at, end, depth)
        return self._finished_message(plan, state)

    def _finished_message(self, plan: MessagePlan, state: _State) -> Any:
        self._finish(state)
        message = object.__new__(plan.cls)
        if state.unknown:
            state.values["_unknown_fields"] = b"".join(state.unknown)
        if state.values:
            vars(message).update(state.values)
        return message

    def _finish(self, state: _State) -> None:
        """Turn the singular messages, which may have come in pieces, into their values."""
        for field, nested in state.nested.values():
            state.values[field.name] = self._value(field, nested)

    def _value(self, field: Field, state: _State) -> Any:
        if field.kind == "message":
            assert field.target is not None
            return self._finished_message(self._ready(field.target), state)
        found = state.values
        if field.kind == "wrapper":
            return found.get("value", field.wrapped.default())
        make = timestamp_from if field.kind == "timestamp" else duration_from
        return make(found.get("seconds", 0), found.get("nanos", 0))

    def _fields(
        self,
        shape: _Shape,
        state: _State,
        buf: bytes,
        at: int,
        end: int,
        depth: int,
    ) -> None:
        """Read buf[at:end] into `state`."""
        values, unknown = state.values, state.unknown
        by_tag, runs = shape
        # In a message without any fields google.protobuf lets field number 0 pass; so does this.
        next_tag = tag_at if by_tag else any_tag_at
        while at < end:
            start = at
            tag, at = next_tag(buf, at, end)
            field = by_tag.get(tag)
            if field is None:
                at = runs.unknown(buf, skip(buf, tag, at, end, depth), end)
                at += repetitions(buf, start, at, end) * (at - start)
                unknown.append(buf[start:at])
                continue
            try:
                if field.group:
                    chosen = state.chosen.get(field.group, field.name)
                    if chosen != field.name:
                        values.pop(chosen, None)
                        state.nested.pop(chosen, None)
                    state.chosen[field.group] = field.name
                if tag & 7 == 2:
                    at, stop = length_at(buf, at, end)
                    if field.kind == "map":
                        odd = self._entry(field, values, buf, at, stop, depth)
                        if odd:
                            unknown += (varint(tag), odd)
                    elif field.kind in _MERGED and not field.repeated:
                        nested = state.nested.setdefault(field.name, (field, _State()))[1]
                        self._read(field, nested, buf, at, stop, depth)
                    else:
                        self._delimited(field, values, buf, at, stop, depth)
                    at = stop
                else:
                    value, at = self._scalar(field, buf, at, end)
                    if field.repeated:
                        values.setdefault(field.name, []).append(value)
                    else:
                        values[field.name] = value
                        at, last = runs.scalars(buf, at, end)
                        for one, raw in last.items():
                            values[one.name] = self._scalar(one, raw, 0, len(raw))[0]
                if buf[at : at + 3] == buf[start : start + 3]:
                    at = self._repeated(field, state, buf, start, at, end)
            except Malformed as bad:
                bad.path.append(_element(field, values))
                raise

    def _read(self, field: Field, state: _State, buf: bytes, at: int, end: int, depth: int) -> None:
        """Read a message, or one of those that are shown as a value, into its state."""
        if depth == 0:
            raise Malformed("nested too deeply")
        if at == end:
            return
        if field.kind == "message":
            assert field.target is not None
            plan = self._ready(field.target)
            shape: _Shape = (plan.by_tag, plan.runs)
        else:
            shape = self._wrappers[field.wraps] if field.kind == "wrapper" else _SECONDS
        self._fields(shape, state, buf, at, end, depth - 1)

    def _repeated(
        self, field: Field, state: _State, buf: bytes, start: int, at: int, end: int
    ) -> int:
        """Account for verbatim repetitions of the field at `start`; return the offset behind."""
        count = repetitions(buf, start, at, end)
        if count and field.repeated:
            found = state.values[field.name]
            if field.kind == "message":
                assert field.target is not None
                if found[-1].__dict__:
                    return at
                cls = field.target
                with _no_collection():
                    found.extend(map(object.__new__, repeat(cls, count)))
            elif field.packable and buf.startswith(varint(field.packed_tag), start):
                first, stop = length_at(buf, start + len(varint(field.packed_tag)), at)
                again: dict[str, Any] = {}
                self._delimited(field, again, buf, first, stop, 0)
                found.extend(again[field.name] * count)
            else:
                found.extend([found[-1]] * count)
        elif count and field.kind == "message":
            # Merging the same again changes nothing, unless something is appended.
            nested = state.nested[field.name][1]
            plural = any(isinstance(value, list) for value in nested.values.values())
            if plural or nested.nested or nested.unknown:
                return at
        return at + count * (at - start)

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
        """One length-delimited value of a string, bytes or repeated field."""
        if field.packable:
            found = values.setdefault(field.name, [])
            if field.tag & 7 == 0:
                found += packed_reader(field)(buf[at:stop])
            else:
                found += fixed_reader(field.kind)(buf[at:stop])
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
        """A message that comes in one piece, or one of those that are shown as a value."""
        state = _State()
        self._read(field, state, buf, at, end, depth)
        return self._value(field, state)

    def _entry(
        self, field: Field, values: dict[str, Any], buf: bytes, at: int, end: int, depth: int
    ) -> bytes:
        """One entry of a map. With unknown fields in it, it is unknown itself and returned."""
        if depth == 0:
            raise Malformed("nested too deeply")
        key, value = field.key, field.value
        assert key is not None and value is not None
        state = _State()
        self._fields(_shape(key, value), state, buf, at, end, depth - 1)
        if state.unknown:
            # As google.protobuf does it: written anew, with what the value itself did not know.
            value, state = _as_message(value), _State()
            self._fields(_shape(key, value), state, buf, at, end, depth - 1)
            self._finish(state)
            entry = state.values
            known = [self._write(one, entry[one.name]) for one in (key, value) if one.name in entry]
            odd = b"".join(known + state.unknown)
            return varint(len(odd)) + odd
        self._finish(state)
        entry = state.values
        found = entry.get("value", UNSET)
        if found is UNSET:
            # A message that is missing is an empty one.
            empty = value.kind in _MERGED
            found = self.nested(value, b"", 0, 0, depth - 1) if empty else value.default()
        values.setdefault(field.name, {})[entry.get("key", key.default())] = found
        return b""


_MERGED: Final = frozenset({"message", "timestamp", "duration", "wrapper"})


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hundreds of thousands of objects at once are no reason to look for garbage each time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _as_message(field: Field) -> Field:
    """The same field without the conversion to a Python value."""
    if field.kind not in _MERGED or field.kind == "message":
        return field
    if field.kind == "wrapper":
        return Field(field.name, field.number, "message", target=_get_wrapper(field.wrapped.kind))
    target = Timestamp if field.kind == "timestamp" else Duration
    return Field(field.name, field.number, "message", target=target)


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
