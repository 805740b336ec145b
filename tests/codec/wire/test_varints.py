"""Numbers as they are on the wire: what is written quickly is what is written one by one."""

from __future__ import annotations

import pytest

from streamkit.codec.compiled.writing import varint
from tests.codec import mutations

BOUNDS = [2**bits + by for bits in (0, 7, 14, 21, 28, 35, 42, 49, 56, 63) for by in (-1, 0, 1)]


@pytest.mark.parametrize("value", [*BOUNDS, 2**64 - 1])
def test_numbers_around_each_length(value: int) -> None:
    assert varint(value) == mutations.varint(value)


def test_negative_numbers_take_ten_bytes() -> None:
    assert varint(-1) == mutations.varint(2**64 - 1)
