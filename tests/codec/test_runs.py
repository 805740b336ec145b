"""Where a run of short fields ends: behind its last whole field, whatever comes next.

Possessive quantifiers had other ideas before CPython 3.11.5, so this is what shows first when an
interpreter is not to be trusted with them.
"""

from __future__ import annotations

import random

import pytest

from streamkit.codec import decode
from streamkit.codec.wire.field import Field, tags_of
from streamkit.codec.wire.runs import Runs, flat_run, group_run, short_run
from streamkit.generated.streamservice import Position
from tests.codec.mutations import varint
from tests.codec.peers import Peers
from tests.codec.test_fuzz import check

ENDINGS = (
    *(b"", b"\x80", b"\x08", b"\x08\x80", b"\x12\x05ab", b"\x0d\1\2", b"\x09\1\2\3\4"),
    *(b"\x08" + b"\xff" * 10 + b"\x01", b"\x0f", b"\x0b\x08\x01", b"\x93\x01\x0f\x80\x80\x01\x05"),
)
"""Beginnings of fields that do not go on as they should."""


def some_field(rng: random.Random, *, groups: bool = True) -> bytes:
    number = rng.randint(10, 2000)
    wire = rng.choice((0, 0, 0, 1, 2, 5, 3) if groups else (0, 0, 0, 1, 2, 5))
    tag = varint(number << 3 | wire)
    if wire == 0:
        return tag + varint(rng.getrandbits(rng.choice((3, 20, 63))))
    if wire == 3:
        inner = b"".join(some_field(rng, groups=False) for _ in range(rng.randint(0, 5)))
        return tag + inner + varint(number << 3 | 4)
    size = {1: 8, 5: 4, 2: rng.randint(0, 23)}[wire]
    return tag + (bytes([size]) if wire == 2 else b"") + rng.randbytes(size)


def test_a_run_ends_behind_its_last_whole_field() -> None:
    rng = random.Random(5)
    position = Runs(tags_of([Field("epoch", 1, "string"), Field("sequence", 2, "uint64")]))
    for _ in range(100):
        flat, grouped = (
            b"".join(some_field(rng, groups=groups) for _ in range(rng.randint(1, 60)))
            for groups in (False, True)
        )
        for ending in ENDINGS:
            assert flat_run().match(flat + ending).end() == len(flat)  # type: ignore[union-attr]  # it may match nothing
            assert group_run().match(flat + ending).end() == len(flat)  # type: ignore[union-attr]  # it may match nothing
            assert short_run().match(grouped + ending).end() == len(grouped)  # type: ignore[union-attr]  # it may match nothing
        if len(grouped) > 256:
            for ending in (*ENDINGS, b"\x0a\x01x", b"\x10\x05"):
                whole = grouped + ending
                assert position.unknown(whole, 0, len(whole), groups=True) == len(grouped)


def test_of_a_run_of_numbers_the_last_whole_ones_count() -> None:
    fields = [Field("a", 1, "uint64"), Field("b", 3, "fixed32"), Field("c", 200, "int32")]
    rng = random.Random(6)
    for _ in range(100):
        runs, last, data = Runs(tags_of(fields)), {}, b""
        for _ in range(rng.randint(1, 100)):
            field = rng.choice(fields)
            number = varint(rng.getrandbits(rng.choice((3, 20, 60))))
            last[field] = rng.randbytes(4) if field.kind == "fixed32" else number
            data += varint(field.tag) + last[field]
        for ending in (b"", b"\x08", b"\x08\x80\x80", b"\x1d\1\2\3", b"\xc0\x0c\xff"):
            whole = data + ending
            assert runs.numbers(whole, 0, len(whole)) == (len(data), last)


def test_a_known_field_behind_many_unknown_ones() -> None:
    rng = random.Random(1)
    for _ in range(200):
        unknown = b"".join(some_field(rng) for _ in range(rng.randint(20, 80)))
        assert decode(Position, unknown + b"\x0a\x01x").epoch == "x"


@pytest.mark.parametrize("times", [1, 200])
def test_numbers_of_one_oneof_in_a_long_run(every: Peers, times: int) -> None:
    ours, google = every.ours.Every, every.google.Every
    number, truth, colour = b"\xc8\x02\x05", b"\x80\x03\x01", b"\xf8\x02\x07"
    for order in ((number, truth, colour), (colour, truth, number), (truth, number, truth)):
        assert check(ours, google, b"".join(order) * times)
        assert check(ours, google, b"".join(one * times for one in order))
