"""Single values in their usual form, and many packed ones: fast, and without a check too many.

Readers assume nothing about the bytes: whatever they do not expect raises, and the exact decoder
starts over.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, Final

from streamkit.codec.wire.field import FIXED_FORMAT, VARINT_KINDS, Field
from streamkit.codec.wire.scan import Malformed, integer_reader, varints
from streamkit.codec.wire.times import duration_from, timestamp_from

__all__ = [
    "UNREAD",
    "Odd",
    "duration",
    "integers",
    "more",
    "packed_reader",
    "timestamp",
]


class Odd(Exception):
    """Compiled code met something that it was not written for."""


UNREAD: Final = (Odd, Malformed, IndexError, UnicodeDecodeError, struct.error)
"""How compiled code gives bytes up: by its own word, at the end of the data, or by what a value's
own reader says. Whatever else is raised is a mistake in this package, and is seen."""


def more(buf: bytes, value: int, at: int) -> tuple[int, int]:
    """Go on with a varint after its first byte, whose high bit is still in `value`."""
    byte = buf[at]
    at += 1
    value += byte * 128 - 128
    if byte < 128:
        return value, at
    value -= 16384
    shift = 14
    while True:
        byte = buf[at]
        at += 1
        if byte < 128:
            return (value | byte << shift) & 0xFFFFFFFFFFFFFFFF, at
        value |= (byte & 127) << shift
        shift += 7
        if shift == 70:
            raise Odd


_seconds: dict[bytes, int] = {}


_SECONDS_KEPT: Final = 4096


def _learn_seconds(raw: bytes) -> int:
    """The seconds of a time between 1978 and 2106, as a Timestamp's first six bytes."""
    tag, a, b, c, d, e = raw
    if tag != 8 or not (a > 127 and b > 127 and c > 127 and d > 127 and e < 16):
        raise Odd
    value = (a & 127) | (b & 127) << 7 | (c & 127) << 14 | (d & 127) << 21 | e << 28
    if len(_seconds) >= _SECONDS_KEPT:
        _seconds.clear()
    _seconds[raw] = value
    return value


def timestamp(
    buf: bytes, at: int, end: int, from_timestamp: Any = datetime.fromtimestamp, utc: Any = UTC
) -> datetime:
    """Read the usual form of a Timestamp: seconds of five bytes, then nanos or none."""
    if end - at < 6:
        return _short_timestamp(buf, at, end)
    raw = buf[at : at + 6]
    seconds = _seconds.get(raw)
    if seconds is None:
        seconds = _learn_seconds(raw)
    at += 6
    if at == end:
        moment: datetime = from_timestamp(seconds, utc)
        return moment
    size = end - at
    if size == 6:
        tag, a, b, c, d, e = buf[at:end]
        if a < 128 or b < 128 or c < 128 or d < 128 or e > 3:
            raise Odd
        nanos = a + (b << 7) + (c << 14) + (d << 21) + (e << 28) - 270549120
    elif size == 5:
        tag, a, b, c, d = buf[at:end]
        if a < 128 or b < 128 or c < 128 or d > 127:
            raise Odd
        nanos = a + (b << 7) + (c << 14) + (d << 21) - 2113664
    else:
        raise Odd
    if tag != 16 or nanos > 999_999_999:
        raise Odd
    # Up to 2**32 seconds a float holds microseconds well enough to round to the right one.
    return from_timestamp(seconds + nanos // 1000 * 1e-6, utc)  # type: ignore[no-any-return]  # bound for speed


def _seconds_and_nanos(buf: bytes, at: int, end: int) -> tuple[int, int]:
    seconds = nanos = 0
    if at < end and buf[at] == 8:
        seconds, at = _varint_from(buf, at + 1)
        if seconds >> 63:
            seconds -= 1 << 64
    if at < end and buf[at] == 16:
        nanos, at = _varint_from(buf, at + 1)
        if nanos >> 31:
            raise Odd
    if at != end:
        raise Odd
    return seconds, nanos


def _short_timestamp(buf: bytes, at: int, end: int) -> datetime:
    return timestamp_from(*_seconds_and_nanos(buf, at, end))


def duration(buf: bytes, at: int, end: int) -> timedelta:
    return duration_from(*_seconds_and_nanos(buf, at, end))


def _varint_from(buf: bytes, at: int) -> tuple[int, int]:
    value = buf[at]
    at += 1
    return more(buf, value, at) if value > 127 else (value, at)


def packed_reader(field: Field) -> Callable[[bytes], Any]:
    """Return the function from a packed field's bytes to its values."""
    kind = field.kind
    if kind not in VARINT_KINDS:
        code, size = FIXED_FORMAT[kind][1], struct.calcsize(FIXED_FORMAT[kind])
        unpack = struct.unpack
        # A length that is no multiple of the size does not fit the format and raises.
        return lambda chunk: unpack(f"<{len(chunk) // size}{code}", chunk)
    converted = integers(field)
    return lambda chunk: converted(varints(chunk))


def integers(field: Field) -> Callable[[list[int]], list[Any]]:
    """Return the function from unsigned 64-bit values to the field's values."""
    kind = field.kind
    convert = integer_reader(kind, field.target)
    if kind == "uint64":
        return lambda values: values
    if kind in ("int32", "int64", "uint32"):
        limit = 0x7FFFFFFF if kind != "int64" else 0x7FFFFFFFFFFFFFFF

        def plain(values: list[int]) -> list[int]:
            if max(values, default=0) > limit:
                return [value if value <= limit else convert(value) for value in values]
            return values

        return plain
    if kind == "bool":
        return lambda values: list(map(bool, values))
    if kind == "sint64":
        return lambda values: [value >> 1 ^ -(value & 1) for value in values]

    def converted(values: list[int]) -> list[Any]:
        # Of many values few are different, and making an enum's unknown member is slow.
        different = list(set(values))
        many = kind == "enum" and len(different) > _MANY_MEMBERS
        made = _members(field.target, different) if many else map(convert, different)
        known = dict(zip(different, made, strict=True))
        return list(map(known.__getitem__, values))

    return converted


_MANY_MEMBERS: Final = 64


def _members(target: Any, values: list[int]) -> list[Any]:
    """Make members of an enum as betterproto does it, many at once."""
    read = integer_reader("int32")
    numbers = list(map(read, values))
    made = list(map(int.__new__, repeat(target), numbers))
    put: Callable[..., None] = object.__setattr__
    deque(map(put, made, repeat("name"), repeat(None)), maxlen=0)
    deque(map(put, made, repeat("value"), numbers), maxlen=0)
    known = target._value_map_
    return [known.get(number, member) for number, member in zip(numbers, made, strict=True)]
