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

from streamkit.codec.exact.short import MERGED, State
from streamkit.codec.exact.single import SingleFields
from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import UNSET, Field, tags_of
from streamkit.codec.wire.runs import Runs
from streamkit.codec.wire.scan import DEPTH, Malformed, varint
from streamkit.codec.wire.times import duration_from, timestamp_from
from streamkit.codec.wire.values import UNREAD, duration, timestamp
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


def _runs(*fields: Field) -> Runs:
    return Runs(tags_of(fields))


_SECONDS: Final = _runs(Field("seconds", 1, "int64"), Field("nanos", 2, "int32"))

_WRAPPED: Final = (
    *("bool", "bytes", "double", "enum", "float", "string"),
    *("int32", "int64", "uint32", "uint64"),
)


class ExactDecoder(SingleFields):
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
        self._wrappers["any_float"] = Runs(either)

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

    def _whole(self, field: Field, raw: bytes, depth: int, tried: bool = False) -> Any:
        """The value of a message that comes in one piece; `tried`: not by the compiled decoder."""
        if depth and not tried and len(raw) < _WHOLE:
            try:
                if field.kind == "message":
                    return self._compiled(field.target)(raw, 0, len(raw), depth - 1)
                if field.kind != "wrapper":
                    return (timestamp if field.kind == "timestamp" else duration)(raw, 0, len(raw))
            except UNREAD:
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
