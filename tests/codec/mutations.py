"""Messages at random, and ways to break their bytes. Everything follows from the seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message as GoogleMessage

_INTEGERS = [0, 1, -1, 5, 127, 128, 300, 16383, 16384, 2**31 - 1, -(2**31), 2**32 - 1, 2**53]
_INTEGERS += [2**63 - 1, -(2**63), 2**64 - 1]
_FLOATS = [0.0, -0.0, 1.5, -2.25, 1e300, 1e-300, float("inf"), float("-inf"), float("nan")]
_TEXTS = ["", "a", "orders", "Grüße", "🚀", "\x00", "x" * 127, "y" * 128, "z" * 300]
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def scalar(rng: random.Random, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        value = rng.choice(_INTEGERS) if rng.random() < 0.6 else rng.randint(low, high)
        return value if low <= value <= high else rng.randint(0, 100)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        number = rng.choice(_FLOATS)
        return struct.unpack("<f", struct.pack("<f", number))[0] if abs(number) < 1e30 else number
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return rng.choice(_FLOATS)
    text = rng.choice(_TEXTS)
    return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()


def fill(rng: random.Random, message: GoogleMessage, density: float, depth: int = 3) -> None:
    """Set fields of a google.protobuf message at random."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() > density:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(rng, getattr(message, field.name), field.message_type, depth)
        elif field.is_repeated:
            target = getattr(message, field.name)
            for _ in range(rng.randint(0, 4)):
                if field.message_type is None:
                    target.append(scalar(rng, field))
                else:
                    _fill_one(rng, target.add(), depth)
        elif field.message_type is not None:
            one = getattr(message, field.name)
            one.SetInParent()
            _fill_one(rng, one, depth)
        else:
            setattr(message, field.name, scalar(rng, field))


def _fill_one(rng: random.Random, message: GoogleMessage, depth: int) -> None:
    if message.DESCRIPTOR.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        usual = message.DESCRIPTOR.name == "Timestamp"
        message.seconds = rng.choice([0, 1, 1_700_000_000, 253402300799, rng.randint(0, 2**33)])
        message.nanos = rng.randint(0, 999_999) * 1000 if rng.random() < 0.7 else 0
        if rng.random() < 0.2:
            message.seconds = -message.seconds
            message.nanos = message.nanos if usual else -message.nanos
    elif depth > 0:
        fill(rng, message, 0.15, depth - 1)


def _fill_map(rng: random.Random, target: Any, entry: Descriptor, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(rng.randint(0, 3)):
        name = scalar(rng, key)
        if value.message_type is not None:
            _fill_one(rng, target[name], depth)
        else:
            target[name] = scalar(rng, value)


def varint(value: int) -> bytes:
    out = bytearray()
    value &= 2**64 - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def noise(rng: random.Random, numbers: list[int], depth: int = 2) -> bytes:
    """Fields with tags of the schema but any wire type, in any order."""
    out = b""
    for _ in range(rng.randint(0, 6)):
        number = (
            rng.choice(numbers) if rng.random() < 0.9 else rng.choice([0, 999, 2**29 - 1, 2**29])
        )
        wire = rng.choice(
            [0, 0, 1, 2, 2, 2, 2, 5, 3, 4, 6, 7] if rng.random() < 0.2 else [0, 1, 2, 2, 5]
        )
        out += varint(number << 3 | wire)
        if rng.random() < 0.02:  # the same tag, longer than needed
            out = out[:-1] + bytes([out[-1] | 128, 0])
        if wire == 0:
            out += (
                varint(rng.choice(_INTEGERS))
                if rng.random() < 0.9
                else b"\xff" * rng.randint(8, 11) + b"\x01"
            )
        elif wire == 1:
            out += rng.randbytes(8)
        elif wire == 5:
            out += rng.randbytes(4)
        elif wire == 2:
            data = noise(rng, numbers, depth - 1) if depth and rng.random() < 0.5 else _blob(rng)
            size = len(data) if rng.random() < 0.97 else rng.randint(0, 300)
            out += varint(size) + data
        elif wire == 3:
            out += noise(rng, numbers, depth - 1) if depth else b""
            out += varint(number << 3 | 4)
    return out


def _blob(rng: random.Random) -> bytes:
    pick = rng.random()
    if pick < 0.3:
        return b""
    if pick < 0.6:
        return rng.choice(_TEXTS).encode()
    if pick < 0.8:
        return b"".join(varint(rng.choice(_INTEGERS)) for _ in range(rng.randint(0, 5)))
    if pick < 0.9:
        # An entry of a map, or a Timestamp.
        parts = [b"\x0a" + varint(1) + b"k", b"\x08" + varint(rng.choice(_INTEGERS))]
        parts += [b"\x12" + varint(1) + b"v", b"\x10" + varint(rng.choice(_INTEGERS)), b""]
        return b"".join(rng.sample(parts, rng.randint(0, 4)))
    return rng.randbytes(rng.randint(0, 20))


def field_of(rng: random.Random, numbers: list[int], depth: int = 2) -> bytes:
    """One short field, more often right than not."""
    number = rng.choice(numbers) if rng.random() < 0.85 else rng.choice([999, 1000, 2**29 - 1])
    pick = rng.random()
    if pick < 0.3:
        size = rng.choice([0, 3, 7, 7, 14, 21, 32, 64])
        return varint(number << 3) + varint(rng.getrandbits(size) if size else 0)
    if pick < 0.38:
        return varint(number << 3 | 5) + rng.randbytes(4)
    if pick < 0.45:
        return varint(number << 3 | 1) + rng.randbytes(8)
    if pick < 0.5:
        body = field_of(rng, numbers, 0) if depth and rng.random() < 0.5 else b""
        end = number if rng.random() < 0.95 else number + 1
        return varint(number << 3 | 3) + body + varint(end << 3 | 4)
    if pick < 0.75 and depth:
        # Low numbers are those of small messages, of entries, times and wrappers.
        low = [1, 2] if rng.random() < 0.8 else [1, 2, 3, *numbers]
        inner = b"".join(field_of(rng, low, depth - 1) for _ in range(rng.choice([1, 1, 2, 2, 3])))
    elif rng.random() < 0.3:
        inner = b""
    else:
        letters = "ab\0" if rng.random() < 0.8 else "aü🚀"
        inner = "".join(rng.choices(letters, k=rng.randint(1, 6))).encode()
        if rng.random() < 0.03:
            inner = rng.randbytes(3)
    length = varint(len(inner))
    if rng.random() < 0.01:
        length = bytes([length[0] | 128, 0]) if len(length) == 1 else length
    return varint(number << 3 | 2) + length + inner


def long_run(rng: random.Random, numbers: list[int], fits: Callable[[bytes], bool]) -> bytes:
    """Many short fields: of one kind, of a few kinds in turn or in any order, in stretches.

    Nearly all of them are right, which is what `fits` says.
    """
    out: list[bytes] = []
    wrong = rng.choice([0, 0, 0, 0.02])

    def one() -> bytes:
        while True:
            field = field_of(rng, few)
            if fits(field) or rng.random() < wrong:
                return field

    for _ in range(rng.choice([1, 1, 2, 3])):
        few = rng.sample(numbers, rng.choice([1, 1, 2, 3, 8]))
        kinds = [one() for _ in range(rng.choice([1, 1, 2, 3, 5, 40]))]
        pick, count = rng.random(), rng.choice([20, 60, 120, 300, 800])
        if pick < 0.3:
            out += kinds * (count // len(kinds) + 1)
        elif pick < 0.7:
            out += rng.choices(kinds, k=count)
        else:
            out += (one() for _ in range(count))
        if rng.random() < 0.05:
            out.append(noise(rng, numbers, 1))
    return b"".join(out)


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to three small damages."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(data))
        pick = rng.randrange(9)
        if pick == 0:
            data = data[:at]
        elif pick == 1 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif pick == 2:
            data = data[:at] + rng.randbytes(1) + data[at:]
        elif pick == 3:
            data = data[:at] + data[at + rng.randint(1, 4) :]
        elif pick == 4:
            end = at + rng.randint(1, 20)
            data = data[:end] + data[at:end] + data[end:]
        elif pick == 5:
            data = data[:at] + rng.choice(others) + data[at:]
        elif pick == 6:
            data = data + rng.choice(others)
        elif pick == 7 and data:
            at = min(at, len(data) - 1)
            new = rng.choice([0, 1, 2, 8, 10, 18, 127, 128, 255])
            data = data[:at] + bytes([new]) + data[at + 1 :]
        else:
            end = at + rng.randint(0, 8)
            data = (
                data[:at]
                + rng.choice([b"\x80" * 9, b"\xff" * 10, b"\xc0\x80", b"\xed\xa0\x80"])
                + data[end:]
            )
    return data
