"""`expect`: the next items of a stream, or what came instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamkit.testing import expect


async def numbers(count: int, *, then_wait: bool = False) -> AsyncIterator[int]:
    for number in range(count):
        yield number
    if then_wait:
        await asyncio.Event().wait()


async def test_items_come_in_parts() -> None:
    stream = numbers(5)
    assert await expect(stream, 2) == [0, 1]
    assert await expect(stream, 0) == []
    assert await expect(stream, 3) == [2, 3, 4]


async def test_what_is_missing_is_told() -> None:
    with pytest.raises(AssertionError, match=r"expected 3 items, got 2, then the stream ended"):
        await expect(numbers(2), 3)
    with pytest.raises(AssertionError, match=r"got 1, no more within 0.01 s: \[0\]"):
        await expect(numbers(1, then_wait=True), 2, within=0.01)


async def test_a_time_limit_of_the_stream_itself_is_its_own() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await expect(failing(), 2)
