"""What compiled code calls and looks up. Everything here trades clarity for speed, on purpose.

Readers assume nothing about the bytes: whatever they do not expect raises, and the exact decoder
starts over. Writers likewise.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, Final

from streamkit.codec.plan import (
    EPOCH,
    FIXED_FORMAT,
    INTEGER_RANGE,
    VARINT_KINDS,
    Field,
    MessagePlan,
)
from streamkit.codec.wire.runs import tiny_run
from streamkit.codec.wire.scan import Malformed, integer_reader, skip, tag_at, varints
from streamkit.codec.wire.scan import varint as any_varint
from streamkit.codec.wire.times import duration_from, duration_parts, timestamp_from

__all__ = [
    "ENDING",
    "GOES_ON",
    "UNREAD",
    "UNWRITTEN",
    "Heads",
    "Members",
    "Odd",
    "dense",
    "duration",
    "duration_bytes",
    "heads",
    "integer_writer",
    "integers",
    "longer",
    "more",
    "more_reader",
    "more_size",
    "packed_reader",
    "packed_writer",
    "text_heads",
    "timestamp",
    "timestamp_bytes",
    "unknown",
    "varint",
    "wrapper_reader",
]


class Odd(Exception):
    """Compiled code met something that it was not written for."""


UNREAD: Final = (Odd, Malformed, IndexError, UnicodeDecodeError, struct.error)
"""How compiled code gives bytes up: by its own word, at the end of the data, or by what a value's
own reader says. Whatever else is raised is a mistake in this package, and is seen."""

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


def more_reader(kind: str) -> Callable[[bytes, int, int], tuple[int, int]]:
    """Return `more` for an integer of this kind, which may have to be cut or have a sign."""
    if kind in ("uint64", "sint64", "bool", "enum"):
        return more
    convert = integer_reader("uint32" if kind == "sint32" else kind)

    def more_of_it(buf: bytes, value: int, at: int) -> tuple[int, int]:
        byte = buf[at]
        if byte < 128:
            return value + byte * 128 - 128, at + 1
        value, at = more(buf, value, at)
        return convert(value), at

    return more_of_it


class Members(dict[int, Any]):
    """The members of an enum by what stands for them on the wire."""

    def __init__(self, target: Any) -> None:
        super().__init__(target._value_map_)
        self.read = integer_reader("enum", target)

    def __missing__(self, value: int) -> Any:
        return self.read(value)


def more_size(buf: bytes, value: int, at: int) -> tuple[int, int]:
    """The same for the size of a value, which has five bytes at most."""
    byte = buf[at]
    if byte < 128:
        return value + byte * 128 - 128, at + 1
    value, after = more(buf, value, at)
    if after - at > 4 or value > 0x7FFFFFFF:
        raise Odd
    return value, after


def longer(buf: bytes, at: int) -> tuple[int, int]:
    """Return where a value of 128 bytes and more starts and ends; its size started before `at`."""
    size, at = more_size(buf, buf[at - 1], at)
    return at, at + size


def dense(buf: bytes, at: int) -> bool:
    """Whether many very small values follow, which should not be read one by one."""
    return tiny_run().match(buf, at) is not None


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
    return from_timestamp(seconds + nanos // 1000 * 1e-6, utc)  # type: ignore[no-any-return]


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


def wrapper_reader(field: Field, read: Callable[..., Any]) -> Callable[[bytes, int, int], Any]:
    """Return the function from a wrapper message's bytes to its value; `read` is the exact one."""
    if field.wraps == "string":

        def text(buf: bytes, at: int, end: int) -> Any:
            if at == end:
                return ""
            if buf[at] != 10 or buf[at + 1] != end - at - 2 or end - at > 129:
                raise Odd
            return buf[at + 2 : end].decode()

        return text
    return lambda buf, at, end: read(field, buf, at, end, 1)


def unknown(buf: bytes, at: int, end: int, depth: int, plan: MessagePlan) -> int:
    """Return the offset behind the unknown fields that start here; there is at least one."""
    start = at
    known = plan.by_tag
    left = 32  # so many are read here, then it is one of the cases for which there are runs
    while at < end:
        left -= 1
        if not left:
            raise Odd
        tag, after = tag_at(buf, at, end)
        if tag in known:
            break
        at = plan.runs.unknown(buf, skip(buf, tag, after, end, depth), end)
    if at == start:
        raise Odd
    return at
