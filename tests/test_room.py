"""Room in bytes: who waits gives up in time, or is cancelled, and none stays taken."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.room import Room


async def test_who_waits_too_long_is_told_and_holds_nothing() -> None:
    room = Room(10, 100)
    await room.take(8)
    with pytest.raises(TimeoutError):
        await room.take(5, 0.01)
    assert (room.taken, room.waiting) == (8, 0)
    room.leave(8)
    assert room.taken == 0


async def test_who_gives_up_lets_the_next_one_in() -> None:
    room = Room(10, 100)
    await room.take(8)
    large = asyncio.ensure_future(room.take(5, 0.01))
    await asyncio.sleep(0)
    small = asyncio.ensure_future(room.take(2))
    with pytest.raises(TimeoutError):
        await large
    await small
    assert (room.taken, room.waiting) == (10, 0)


@pytest.mark.parametrize("order", ["cancelled, then let in", "let in, then cancelled"])
async def test_a_cancellation_in_the_turn_of_the_answer(order: str) -> None:
    room = Room(10, 100)
    await room.take(8)
    waiter = asyncio.ensure_future(room.take(5, 60))
    await asyncio.sleep(0)
    if order.startswith("cancelled"):
        waiter.cancel()
        room.leave(8)
    else:
        room.leave(8)
        waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert (room.taken, room.waiting) == (0, 0)
