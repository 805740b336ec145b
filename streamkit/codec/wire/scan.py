"""The wire format: varints, tags, scalars, and what may follow what. No message classes here.

Everything that reads raises `Malformed`; whoever knows the field adds it to the path.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from streamkit.codec.wire.columns import columns
from streamkit.codec.wire.field import FIXED_FORMAT, VARINT_KINDS
from streamkit.codec.wire.runs import group_run

__all__ = [
    "DEPTH",
    "Malformed",
    "any_tag_at",
    "fixed_reader",
    "fixed_size",
    "integer_reader",
    "length_at",
    "skip",
    "tag_at",
    "varint",
    "varint_at",
    "varints",
]

DEPTH: Final = 100
"""Levels of nesting that a message may have, the same as every other protobuf decoder's default."""

_U64: Final = (1 << 64) - 1


class Malformed(Exception):
    """Bytes that break the wire format; becomes a DecodeError with the path of the field."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def varint(value: int) -> bytes:
    """Encode; a negative number takes ten bytes, as protobuf wants it."""
    value &= _U64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_at(buf: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Return the unsigned 64-bit value and the offset behind it."""
    value = shift = 0
    while at < end:
        byte = buf[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _U64, at
        shift += 7
        if shift == 70:
            raise Malformed("a varint is longer than ten bytes")
    raise Malformed("the data ends inside a varint")


def tag_at(buf: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Return a checked tag, number and wire type in one, and the offset behind it."""
    tag, after = any_tag_at(buf, at, end)
    if tag < 8:
        raise Malformed("field number 0")
    return tag, after


def any_tag_at(buf: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Return a tag whose field number may be 0."""
    tag, after = varint_at(buf, at, end)
    if after - at > 5 or tag >> 32:
        raise Malformed("a field number is out of range")
    return tag, after


def length_at(buf: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Return where a length-delimited value starts and ends."""
    if at < end and buf[at] < 128:
        size, start = buf[at], at + 1
    else:
        size, start = varint_at(buf, at, end)
    if size > end - start:
        raise Malformed("the data is truncated")
    if start - at > 5:
        raise Malformed("a length is longer than five bytes")
    return start, start + size


def skip(buf: bytes | memoryview, tag: int, at: int, end: int, depth: int) -> int:
    """Return the offset behind the value of a field that nobody knows."""
    wire = tag & 7
    if wire == 0:
        return varint_at(buf, at, end)[1]
    if wire == 2:
        return length_at(buf, at, end)[1]
    if wire == 1 or wire == 5:
        after = at + (8 if wire == 1 else 4)
        if after > end:
            raise Malformed("the data is truncated")
        return after
    if wire == 3:
        return _skip_group(buf, tag, at, end, depth)
    if wire == 4:
        raise Malformed("a group ends that was not begun")
    raise Malformed(f"wire type {wire} does not exist")


def _skip_group(buf: bytes | memoryview, tag: int, at: int, end: int, depth: int) -> int:
    # Within a group that nobody knows, google.protobuf lets field number 0 pass; so does this.
    open_groups = [tag >> 3]
    while open_groups:
        if len(open_groups) > depth:
            raise Malformed("nested too deeply")
        if at >= end:
            raise Malformed("the data ends inside a group")
        tag = buf[at]
        at += 1
        if tag > 127:
            tag, at = any_tag_at(buf, at - 1, end)
        wire = tag & 7
        if wire == 3:
            open_groups.append(tag >> 3)
        elif wire == 4:
            if open_groups.pop() != tag >> 3:
                raise Malformed("a group ends that was not begun")
        else:
            at = skip(buf, tag, at, end, 0)
            if end - at > _WORTH_A_RUN:
                at = group_run().match(buf, at, end).end()  # type: ignore[union-attr]  # it may match nothing
    return at


_WORTH_A_RUN: Final = 16
_WORTH_COLUMNS: Final = 80


def varints(chunk: bytes) -> list[int]:
    """Return all the unsigned values of a packed field."""
    if chunk.isascii():
        return list(chunk)
    if len(chunk) > _WORTH_COLUMNS and chunk[-1] < 128:
        found = columns(chunk)
        if found is None:
            raise Malformed("a varint is longer than ten bytes")
        return found
    values: list[int] = []
    add = values.append
    value = shift = 0
    for byte in chunk:
        if byte < 128:
            if shift:
                add((value | byte << shift) & _U64)
                value = shift = 0
            else:
                add(byte)
        else:
            if shift == 63:
                raise Malformed("a varint is longer than ten bytes")
            value |= (byte & 127) << shift
            shift += 7
    if shift:
        raise Malformed("the data ends inside a varint")
    return values


def _int32(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _int64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _sint32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value >> 1 ^ -(value & 1)


_FROM_VARINT: Final[dict[str, Callable[[int], int]]] = {
    "bool": bool,
    "int32": _int32,
    "int64": _int64,
    "uint32": lambda value: value & 0xFFFFFFFF,
    "uint64": lambda value: value,
    "sint32": _sint32,
    "sint64": lambda value: value >> 1 ^ -(value & 1),
}


def integer_reader(kind: str, target: Any = None) -> Callable[[int], Any]:
    """Return the function from an unsigned 64-bit value to the field's Python value."""
    if kind != "enum":
        return _FROM_VARINT[kind]
    known = dict(target._value_map_)
    make = target.__new__

    def member(value: int) -> Any:
        number = _int32(value)
        found = known.get(number)
        # What betterproto's try_value does after it has caught an exception.
        return make(target, name=None, value=number) if found is None else found

    return member


def fixed_size(kind: str) -> int:
    return struct.calcsize(FIXED_FORMAT[kind])


def fixed_reader(kind: str) -> Callable[[bytes], Iterable[Any]]:
    """Return the function from the bytes of a packed field to its values."""
    code = FIXED_FORMAT[kind][1]
    size = fixed_size(kind)

    def read(chunk: bytes) -> Iterable[Any]:
        if len(chunk) % size:
            raise Malformed("the data is truncated")
        return struct.unpack(f"<{len(chunk) // size}{code}", chunk)

    return read


assert frozenset(_FROM_VARINT) | {"enum"} == VARINT_KINDS
