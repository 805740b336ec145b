"""The exact encoder: checks every value, says which one is wrong.

It runs whenever a compiled encoder meets a value that it was not written for, and either encodes
it or raises EncodeError with the field's path. It accepts what betterproto accepts in practice:
ints for enums and bools, tuples for lists, subclasses of str, plain values inside a Struct.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import betterproto
from betterproto.lib.google.protobuf import ListValue, NullValue, Struct, Value

from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import FIXED_FORMAT, INTEGER_RANGE, UNSET, VARINT_KINDS, Field
from streamkit.codec.wire.scan import varint
from streamkit.codec.wire.times import duration_parts, timestamp_parts
from streamkit.errors import EncodeError

__all__ = ["ExactEncoder"]


class _Unfit(Exception):
    """A value that its field cannot hold; becomes an EncodeError with the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class ExactEncoder:
    """Encodes messages of every class; `ready` makes a class usable and returns its plan."""

    def __init__(self, ready: Callable[[type[betterproto.Message]], MessagePlan]) -> None:
        self._ready = ready

    def encode(self, message: betterproto.Message) -> bytes:
        plan = self._ready(type(message))
        try:
            return self._message(plan, message)
        except _Unfit as bad:
            steps = "".join(p if p[0] == "[" else f".{p}" for p in reversed(bad.path))
            raise EncodeError(bad.reason, plan.name + steps) from None
        except RecursionError:
            raise EncodeError("nested too deeply", plan.name) from None

    def field(self, field: Field, value: Any) -> bytes:
        """Encode one field that was decoded."""
        out: list[bytes] = []
        self._field(field, value, out)
        return b"".join(out)

    def _message(self, plan: MessagePlan, message: betterproto.Message) -> bytes:
        values = vars(message)
        out: list[bytes] = []
        for field in plan.fields:
            value = values.get(field.name, UNSET)
            if value is UNSET or value is None:
                continue
            try:
                self._field(field, value, out)
            except _Unfit as bad:
                bad.path.append(field.name)
                raise
        out.append(values.get("_unknown_fields", b""))
        return b"".join(out)

    def _field(self, field: Field, value: Any, out: list[bytes]) -> None:
        if field.kind == "map":
            self._map(field, value, out)
        elif field.repeated:
            self._repeated(field, value, out)
        elif field.kind == "message":
            data = self._one(field, value)
            # An empty message is sent if it was received or chosen, not if it was only looked at.
            if data or field.group or field.optional or _sent_empty(value):
                out += (varint(field.tag), varint(len(data)), data)
        else:
            data = self._one(field, value)
            if field.presence or not _is_default(field, value):
                out.append(varint(field.tag))
                if field.tag & 7 == 2:
                    out.append(varint(len(data)))
                out.append(data)

    def _repeated(self, field: Field, value: Any, out: list[bytes]) -> None:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise _Unfit(f"{_called(value)} is not a list")
        parts: list[bytes] = []
        for index, item in enumerate(value):
            try:
                parts.append(self._one(field, item))
            except _Unfit as bad:
                bad.path.append(f"[{index}]")
                raise
        if field.packable:
            if parts:
                data = b"".join(parts)
                out += (varint(field.packed_tag), varint(len(data)), data)
            return
        tag = varint(field.tag)
        for data in parts:
            out += (tag, varint(len(data)), data)

    def _map(self, field: Field, value: Any, out: list[bytes]) -> None:
        if not isinstance(value, Mapping):
            raise _Unfit(f"{_called(value)} is not a dict")
        assert field.key is not None and field.value is not None
        tag = varint(field.tag)
        for key, item in value.items():
            try:
                data = self._tagged(field.key, key) + self._tagged(field.value, item)
            except _Unfit as bad:
                bad.path.append(f"[{key!r}]")
                raise
            out += (tag, varint(len(data)), data)

    def _tagged(self, field: Field, value: Any) -> bytes:
        data = self._one(field, value)
        size = varint(len(data)) if field.tag & 7 == 2 else b""
        return varint(field.tag) + size + data

    def _one(self, field: Field, value: Any) -> bytes:
        """Encode one value without its tag and length."""
        kind = field.kind
        if kind == "message":
            return self._nested(field, value)
        if kind == "wrapper":
            inner = field.wrapped
            if value is None or _is_default(inner, value):
                return b""
            if field.wraps == "int64" and isinstance(value, int) and value >> 63 == 1:
                inner = Field("value", 1, "uint64")  # a map's wrapper, whose sign is not known
            return self._tagged(inner, value)
        if kind in ("timestamp", "duration"):
            seconds, nanos = _times(kind, value)
            return (b"\x08" + varint(seconds) if seconds else b"") + (
                b"\x10" + varint(nanos) if nanos else b""
            )
        return _SCALAR[kind](kind, value)

    def _nested(self, field: Field, value: Any) -> bytes:
        assert field.target is not None
        if not isinstance(value, field.target):
            convert = _FROM_PLAIN.get(field.target)
            if convert is None or isinstance(value, betterproto.Message):
                raise _Unfit(f"{_called(value)} is not {field.target.__name__}")
            value = convert(value)
        return self._message(self._ready(type(value)), value)


def _sent_empty(message: betterproto.Message) -> bool:
    return bool(message._serialized_on_wire)


def _is_default(field: Field, value: Any) -> bool:
    if field.kind in ("float", "double"):
        # Minus zero is not the default.
        return bool(value == 0) and math.copysign(1.0, value) > 0
    return not value


def _called(value: object) -> str:
    return f"a {type(value).__name__}"


def _integer(kind: str, value: Any) -> int:
    if not isinstance(value, int):
        raise _Unfit(f"{_called(value)} is not an integer")
    low, high = INTEGER_RANGE[kind]
    if not low <= value <= high:
        raise _Unfit(f"{int(value)} is out of range for {kind}")
    return int(value)


def _varint(kind: str, value: Any) -> bytes:
    return varint(_integer(kind, value))


def _zigzag(kind: str, value: Any) -> bytes:
    number = _integer(kind, value)
    return varint(number << 1 ^ number >> 63)


def _bool(kind: str, value: Any) -> bytes:
    if not isinstance(value, int):
        raise _Unfit(f"{_called(value)} is not a bool")
    return b"\x01" if value else b"\x00"


def _fixed(kind: str, value: Any) -> bytes:
    return struct.pack(FIXED_FORMAT[kind], _integer(kind, value))


def _float(kind: str, value: Any) -> bytes:
    if not isinstance(value, (int, float)):
        raise _Unfit(f"{_called(value)} is not a number")
    try:
        return struct.pack(FIXED_FORMAT[kind], value)
    except OverflowError:
        if kind == "double":
            raise _Unfit(f"{value} is out of range for double") from None
        return struct.pack("<f", math.copysign(math.inf, value))


def _string(kind: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise _Unfit(f"{_called(value)} is not a str")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _Unfit("a lone surrogate cannot be encoded as UTF-8") from None


def _bytes(kind: str, value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise _Unfit(f"{_called(value)} is not bytes")
    return bytes(value)


_SCALAR: Final[dict[str, Callable[[str, Any], bytes]]] = {
    **dict.fromkeys(VARINT_KINDS, _varint),
    "sint32": _zigzag,
    "sint64": _zigzag,
    "bool": _bool,
    **dict.fromkeys(FIXED_FORMAT, _fixed),
    "float": _float,
    "double": _float,
    "string": _string,
    "bytes": _bytes,
}


def _times(kind: str, value: Any) -> tuple[int, int]:
    if kind == "timestamp":
        if not isinstance(value, datetime):
            raise _Unfit(f"{_called(value)} is not a datetime")
        return timestamp_parts(value)
    if not isinstance(value, timedelta):
        raise _Unfit(f"{_called(value)} is not a timedelta")
    return duration_parts(value)


def _plain_value(value: Any) -> Value:
    """What betterproto's Struct.from_dict leaves in `fields` are plain Python values."""
    if value is None:
        return Value(null_value=NullValue.try_value(0))
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, (int, float)):
        return Value(number_value=float(value))
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, Struct):
        return Value(struct_value=value)
    if isinstance(value, ListValue):
        return Value(list_value=value)
    if isinstance(value, Mapping):
        return Value(struct_value=_plain_struct(value))
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return Value(list_value=_plain_list(value))
    raise _Unfit(f"{_called(value)} is not a JSON value")


def _plain_struct(value: Any) -> Struct:
    if not isinstance(value, Mapping):
        raise _Unfit(f"{_called(value)} is not Struct")
    return Struct(fields=dict(value))


def _plain_list(value: Any) -> ListValue:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise _Unfit(f"{_called(value)} is not ListValue")
    return ListValue(values=list(value))


_FROM_PLAIN: Final[dict[type, Callable[[Any], betterproto.Message]]] = {
    Value: _plain_value,
    Struct: _plain_struct,
    ListValue: _plain_list,
}
