"""What compiled encoders call and look up. Everything here trades clarity for speed, on purpose.

Writers assume nothing about the values: whatever they do not expect raises, and the exact encoder
starts over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from streamkit.codec.wire.field import EPOCH, FIXED_FORMAT, INTEGER_RANGE, VARINT_KINDS, Field
from streamkit.codec.wire.scan import varint as any_varint
from streamkit.codec.wire.times import duration_parts
from streamkit.codec.wire.values import Odd

__all__ = [
    "ENDING",
    "GOES_ON",
    "UNWRITTEN",
    "Heads",
    "duration_bytes",
    "heads",
    "integer_writer",
    "packed_writer",
    "text_heads",
    "timestamp_bytes",
    "varint",
]


UNWRITTEN: Final = (
    *(Odd, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError),
    struct.error,
)
"""The same for values, which can be of any type: these are what operations on a wrong one raise."""


_ONE: Final = [bytes((n,)) for n in range(128)]


_CONTINUED: Final = [bytes((n | 128,)) for n in range(128)]


ENDING: Final = _ONE + [low + high for high in _ONE[1:] for low in _CONTINUED]
"""The varints of 0..16383."""


GOES_ON: Final = [low + high for high in _CONTINUED for low in _CONTINUED]
"""The low 14 bits of a longer varint."""


def varint(value: int) -> bytes:
    """Encode any number from 0 to 2**64-1; negative ones as protobuf does."""
    if 0 <= value < 16384:
        return ENDING[value]
    if 0 < value < 268435456:
        return GOES_ON[value & 16383] + ENDING[value >> 14]
    if 0 < value < 4398046511104:
        return GOES_ON[value & 16383] + GOES_ON[value >> 14 & 16383] + ENDING[value >> 28]
    return any_varint(value)


class Heads(dict[int, bytes]):
    """Tag and length of a value, by the length."""

    def __init__(self, tag: int) -> None:
        self.tag = any_varint(tag)
        super().__init__((size, self.tag + _ONE[size]) for size in range(128))

    def __missing__(self, size: int) -> bytes:
        return self.tag + varint(size)


_heads: dict[int, Heads] = {}


_text_heads: dict[int, list[str]] = {}


def heads(tag: int) -> Heads:
    if tag not in _heads:
        _heads[tag] = Heads(tag)
    return _heads[tag]


def text_heads(tag: int) -> list[str]:
    """The same as text, for a one-byte tag."""
    if tag not in _text_heads:
        _text_heads[tag] = [chr(tag) + chr(size) for size in range(128)]
    return _text_heads[tag]


def integer_writer(kind: str) -> Callable[[int], bytes]:
    """Return the function from a number to its varint, if it is in range."""
    low, high = INTEGER_RANGE[kind]
    if kind in ("sint32", "sint64"):

        def zigzag(value: int) -> bytes:
            if not low <= value <= high:
                raise Odd
            return varint(value << 1 ^ value >> 63)

        return zigzag

    def plain(value: int) -> bytes:
        if not low <= value <= high:
            raise Odd
        return varint(value)

    return plain


_second_heads: dict[int, bytes] = {}
_SECONDS_KEPT: Final = 4096


def _second_head(seconds: int) -> bytes:
    """The field `seconds`; a stream has many times of the same second."""
    if len(_second_heads) >= _SECONDS_KEPT:
        _second_heads.clear()
    _second_heads[seconds] = head = b"\x08" + varint(seconds) if seconds else b""
    return head


def timestamp_bytes(value: datetime, epoch: datetime = EPOCH) -> bytes:
    """Write a Timestamp with its length before it."""
    if type(value) is not datetime:
        raise Odd
    since = value - epoch  # raises for a naive one
    seconds = since.days * 86400 + since.seconds
    head = _second_heads.get(seconds)
    if head is None:
        head = _second_head(seconds)
    nanos = since.microseconds * 1000
    if nanos >= 268435456:
        low, middle = GOES_ON[nanos & 16383], GOES_ON[nanos >> 14 & 16383]
        head += b"\x10" + low + middle + _ONE[nanos >> 28]
    elif nanos:
        head += b"\x10" + varint(nanos)
    return _ONE[len(head)] + head


def duration_bytes(value: timedelta) -> bytes:
    """Write a Duration with its length before it."""
    if type(value) is not timedelta:
        raise Odd
    seconds, nanos = duration_parts(value)
    data = (b"\x08" + varint(seconds) if seconds else b"") + (
        b"\x10" + varint(nanos) if nanos else b""
    )
    return _ONE[len(data)] + data


def packed_writer(field: Field) -> Callable[[Any], bytes]:
    """Return the function from a list to a packed field's bytes."""
    kind = field.kind
    if kind not in VARINT_KINDS:
        code = FIXED_FORMAT[kind][1]
        pack = struct.pack
        return lambda values: pack(f"<{len(values)}{code}", *values)
    if kind in ("sint32", "sint64"):
        low, high = INTEGER_RANGE[kind]

        def zigzag(values: Any) -> bytes:
            if values and not low <= min(values) <= max(values) <= high:
                raise Odd
            return b"".join([varint(n << 1 ^ n >> 63) for n in values])

        return zigzag
    if kind == "bool":
        low, high = 0, 1
    else:
        low, high = INTEGER_RANGE[kind]

    def plain(values: Any) -> bytes:
        if not values:
            return b""
        least, most = min(values), max(values)
        if not low <= least <= most <= high:
            raise Odd
        if least >= 0 and most < 128:
            return bytes(values)
        return b"".join([varint(n) for n in values])

    return plain
