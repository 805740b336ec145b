"""The exact decoder: every rule of the format, in the order in which they apply.

It runs whenever a compiled decoder meets anything that it was not written for: corrupt input, but
also unknown fields, fields out of order or seen twice. What it accepts, what it refuses and what
comes out is what google.protobuf does.

A singular message that is seen more than once is merged: its pieces are read one after the other
into one state, which becomes the value at the end.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import betterproto
from betterproto import _get_wrapper
from betterproto.lib.google.protobuf import Duration, Timestamp

from streamkit.codec._plan import LEN, UNSET, Field, MessagePlan, tags_of
from streamkit.codec._runs import SHORT_SIZE, Runs
from streamkit.codec._short import MERGED, ShortFields, State, element
from streamkit.codec._tables import duration, packed_reader, timestamp
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

_MANY: Final = 1 << 14
"""Bytes that may become so many objects that the garbage collector is to wait."""
_WHOLE: Final = 1 << 12
"""Bytes of a sub-message up to which the compiled decoder is tried first. What it cannot read has
to be read again; that must not happen on every level of a long and deep message."""


_LONG: Final = 256
"""Bytes from which on runs of short fields are looked for."""
_SEVERAL: Final = 3
"""Short fields in a row after which more of them are expected."""


_KEPT: Final = 256
"""Entries of maps with unknown fields that are remembered: they take long to be written anew."""


def _runs(*fields: Field) -> Runs:
    return Runs(tags_of(fields))


_SECONDS: Final = _runs(Field("seconds", 1, "int64"), Field("nanos", 2, "int32"))

_WRAPPED: Final = (
    *("bool", "bytes", "double", "enum", "float", "string"),
    *("int32", "int64", "uint32", "uint64"),
)


class ExactDecoder(ShortFields):
    """Decodes messages of every class.

    `ready` makes a class usable and returns its plan; `write` encodes one field; `compiled` returns
    the `scan` of a class.
    """

    def __init__(
        self,
        ready: Callable[[type[betterproto.Message]], MessagePlan],
        write: Callable[[Field, Any], bytes],
        compiled: Callable[[Any], Callable[..., Any]],
    ) -> None:
        self._ready = ready
        self._write = write
        self._compiled = compiled
        self._entry_runs: dict[tuple[Field, Field], Runs] = {}
        self._wrappers: dict[str, Runs] = {
            kind: _runs(Field("value", 1, kind)) for kind in _WRAPPED
        }
        either = {**self._wrappers["double"].by_tag, **self._wrappers["float"].by_tag}
        self._wrappers["any float"] = Runs(either)

    def decode(self, cls: type[_M], data: bytes, start: int = 0, end: int | None = None) -> _M:
        """Decode data[start:end]. Raises DecodeError with the reason and the field's path."""
        if type(data) is not bytes:
            data = bytes(data)
        if start or end is not None:
            data = data[start:end]
        plan = self._ready(cls)
        try:
            with _collector_waits(len(data) > _MANY):
                message: _M = self._message(plan, data)
            return message
        except Malformed as bad:
            path = ".".join([plan.name, *reversed(bad.path)])
            raise DecodeError(bad.reason, path) from None

    def _message(self, plan: MessagePlan, data: bytes) -> Any:
        state = State()
        self._fields(plan.runs, state, data, 0, len(data), DEPTH)
        return self._finished_message(plan, state)

    def _finished_message(self, plan: MessagePlan, state: State) -> Any:
        self._finish(state)
        message = object.__new__(plan.cls)
        if state.unknown:
            state.values["_unknown_fields"] = b"".join(state.unknown)
        if state.values:
            vars(message).update(state.values)
        return message

    def _finish(self, state: State) -> None:
        """Turn the singular messages, which may have come in pieces, into their values."""
        for field, nested in state.nested.values():
            state.values[field.name] = self._value(field, nested)

    def _value(self, field: Field, state: State) -> Any:
        if field.kind == "message":
            assert field.target is not None
            return self._finished_message(self._ready(field.target), state)
        found = state.values
        if field.kind == "wrapper":
            return found.get("value", field.wrapped.default())
        make = timestamp_from if field.kind == "timestamp" else duration_from
        return make(found.get("seconds", 0), found.get("nanos", 0))

    def _fields(self, runs: Runs, state: State, buf: bytes, at: int, end: int, depth: int) -> None:
        """Read buf[at:end] into `state`."""
        if end - at < _LONG:
            self._one_by_one(runs, state, buf, at, end, depth)
            return
        while at < end:
            at = self._short(runs, state, buf, at, end, depth)
            at = self._one_by_one(runs, state, buf, at, end, depth, until_short=True)

    def _one_by_one(
        self,
        runs: Runs,
        state: State,
        buf: bytes,
        at: int,
        end: int,
        depth: int,
        until_short: bool = False,
    ) -> int:
        """Read fields into `state`, all of them or until several short ones followed each other.

        Return the offset behind.
        """
        values = state.values
        by_tag = runs.by_tag
        # In a message without any fields google.protobuf lets field number 0 pass; so does this.
        next_tag = tag_at if by_tag else any_tag_at
        seen = 0
        while at < end and seen < _SEVERAL:
            start = at
            tag = buf[at]
            if 8 <= tag < 128:
                at += 1
            else:
                tag, at = next_tag(buf, at, end)
            field = by_tag.get(tag)
            if field is None:
                at = skip(buf, tag, at, end, depth)
                state.unknown.append(buf[start:at])
            else:
                try:
                    if field.group:
                        state.choose(field)
                    if tag & 7 == LEN:
                        at, stop = length_at(buf, at, end)
                        self._delimited(field, tag, state, buf, at, stop, depth)
                        at = stop
                    else:
                        value, at = self._scalar(field, buf, at, end)
                        if field.repeated:
                            values.setdefault(field.name, []).append(value)
                        else:
                            values[field.name] = value
                except Malformed as bad:
                    bad.path.append(element(field, values))
                    raise
            if until_short:
                seen = seen + 1 if at - start < SHORT_SIZE else 0
        return at

    def _read(self, field: Field, state: State, buf: bytes, at: int, end: int, depth: int) -> None:
        """Read a message, or one of those that are shown as a value, into its state."""
        if depth == 0:
            raise Malformed("nested too deeply")
        if at == end:
            return
        if field.kind == "message":
            assert field.target is not None
            runs = self._ready(field.target).runs
        else:
            runs = self._wrappers[field.wraps] if field.kind == "wrapper" else _SECONDS
        self._fields(runs, state, buf, at, end, depth - 1)

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
        self, field: Field, tag: int, state: State, buf: bytes, at: int, stop: int, depth: int
    ) -> None:
        """One length-delimited value."""
        values, kind = state.values, field.kind
        if kind == "map":
            entry = tag, buf[at:stop]
            odd = state.odd.get(entry) or self._entry(field, values, buf, at, stop, depth)
            if odd:
                state.unknown += (varint(tag), odd)
                if len(state.odd) < _KEPT:
                    state.odd[entry] = odd
        elif field.packable:
            read = packed_reader(field) if field.tag & 7 == 0 else fixed_reader(kind)
            values.setdefault(field.name, []).extend(read(buf[at:stop]))
        elif kind in MERGED and not field.repeated:
            nested = state.nested.get(field.name)
            if nested is None:
                nested = state.nested[field.name] = field, State(state.tried)
            self._read(field, nested[1], buf, at, stop, depth)
        else:
            if kind in MERGED:
                value = self._whole(field, buf[at:stop], depth, state.tried)
            else:
                value = _text(buf[at:stop]) if kind == "string" else buf[at:stop]
            if field.repeated:
                values.setdefault(field.name, []).append(value)
            else:
                values[field.name] = value

    def _whole(self, field: Field, raw: bytes, depth: int, tried: bool = False) -> Any:
        """The value of a message that comes in one piece; `tried`: not by the compiled decoder."""
        if depth and not tried and len(raw) < _WHOLE:
            try:
                if field.kind == "message":
                    return self._compiled(field.target)(raw, 0, len(raw), depth - 1)
                if field.kind != "wrapper":
                    return (timestamp if field.kind == "timestamp" else duration)(raw, 0, len(raw))
            except Exception:
                tried = True
        state = State(tried)
        self._read(field, state, raw, 0, len(raw), depth)
        return self._value(field, state)

    def nested(self, field: Field, buf: bytes, at: int, end: int, depth: int) -> Any:
        """A message that comes in one piece, or one of those that are shown as a value."""
        state = State()
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
        state = State()
        self._fields(self._runs_of(key, value), state, buf, at, end, depth - 1)
        if state.unknown:
            # As google.protobuf does it: written anew, with what the value itself did not know.
            if value.kind in MERGED:
                value, state = _as_message(value), State()
                self._fields(self._runs_of(key, value), state, buf, at, end, depth - 1)
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
            empty = value.kind in MERGED
            found = self.nested(value, b"", 0, 0, depth - 1) if empty else value.default()
        values.setdefault(field.name, {})[entry.get("key", key.default())] = found
        return b""

    def _runs_of(self, key: Field, value: Field) -> Runs:
        found = self._entry_runs.get((key, value))
        if found is None:
            found = self._entry_runs[key, value] = _runs(key, value)
        return found


@contextmanager
def _collector_waits(much: bool) -> Iterator[None]:
    """Hundreds of thousands of objects at once are no reason to look for garbage each time."""
    enabled = much and gc.isenabled()
    if enabled:
        gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _as_message(field: Field) -> Field:
    """The same field without the conversion to a Python value."""
    if field.kind not in MERGED or field.kind == "message":
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
