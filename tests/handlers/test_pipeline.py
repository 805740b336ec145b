"""Requests in work at once, answered in order, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from streamkit.errors import LimitError
from streamkit.handlers.pipeline import in_order
from streamkit.room import Room

ROOM = Room(1 << 30, 1 << 30)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_results_keep_the_order_of_the_requests() -> None:
    gates = [asyncio.Event() for _ in range(5)]
    begun: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        await gates[number].wait()
        return number

    results = in_order(numbers(5), work, weigh=lambda _: 1, limit=10, budget=10, room=ROOM)
    async with aclosing(results):
        for gate in reversed(gates[1:]):
            gate.set()
        first = asyncio.ensure_future(anext(results))
        while len(begun) < 5:
            await asyncio.sleep(0)
        assert begun == [0, 1, 2, 3, 4]
        assert not first.done()
        gates[0].set()
        assert await first == [0, 1, 2, 3, 4]
        with pytest.raises(StopAsyncIteration):
            await anext(results)


@pytest.mark.parametrize(("limit", "budget", "most"), [(3, 100, 3), (100, 20, 2), (100, 1, 1)])
async def test_no_more_than_the_bounds_are_in_work(limit: int, budget: int, most: int) -> None:
    inside = 0
    seen = 0

    async def work(number: int) -> int:
        nonlocal inside, seen
        inside += 1
        seen = max(seen, inside)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        inside -= 1
        return number

    got: list[int] = []
    async for ready in in_order(
        numbers(50), work, weigh=lambda _: 10, limit=limit, budget=budget, room=ROOM
    ):
        got += ready
    assert got == list(range(50))
    assert seen == most


async def test_an_error_of_the_requests_comes_after_their_results() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ConnectionResetError

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    got: list[int] = []
    with pytest.raises(ConnectionResetError):
        async for ready in in_order(
            broken(), work, weigh=lambda _: 1, limit=9, budget=9, room=ROOM
        ):
            got += ready
    assert got == [1, 2]


async def test_an_error_of_the_work_ends_it() -> None:
    cancelled: list[int] = []

    async def work(number: int) -> int:
        if number == 1:
            raise ValueError("no")
        try:
            await asyncio.sleep(0 if number == 0 else 60)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    with pytest.raises(ValueError, match="no"):
        async for _ in in_order(numbers(4), work, weigh=lambda _: 1, limit=9, budget=9, room=ROOM):
            pass
    assert cancelled == [2, 3]


async def test_closing_cancels_what_is_in_work_and_the_reading() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def requests() -> AsyncGenerator[int, None]:
        try:
            yield 0
            yield 1
            await asyncio.sleep(60)
        finally:
            ended.append("requests")

    async def work(number: int) -> int:
        if number:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("work")
        return number

    source = requests()
    async with aclosing(source):
        results = in_order(source, work, weigh=lambda _: 1, limit=9, budget=9, room=ROOM)
        async with aclosing(results):
            assert await anext(results) == [0]
            await begun.wait()
        assert sorted(ended) == ["requests", "work"]
    assert len(asyncio.all_tasks()) == 1


async def test_what_mixed_work_begins_comes_before_the_next_request() -> None:
    begun: list[str] = []

    async def part(name: str) -> None:
        begun.append(name)

    async def work(number: int) -> int:
        if number == 0:
            await asyncio.gather(part("0a"), part("0b"))
        else:
            await part(str(number))
        return number

    results = in_order(
        numbers(3), work, weigh=lambda _: 1, limit=9, budget=9, room=ROOM, apart=lambda n: n == 0
    )
    async for _ in results:
        pass
    assert begun == ["0a", "0b", "1", "2"]


async def test_all_streams_share_one_room() -> None:
    room = Room(100, 1000)
    inside = 0
    seen = 0

    async def work(number: int) -> int:
        nonlocal inside, seen
        inside += 1
        seen = max(seen, inside)
        await asyncio.sleep(0)
        inside -= 1
        if number == 49:
            raise ValueError
        return number

    async def stream(count: int) -> list[int]:
        got: list[int] = []
        results = in_order(
            numbers(count), work, weigh=lambda _: 10, limit=99, budget=1000, room=room
        )
        with suppress(ValueError):
            async for ready in results:
                got += ready
        return got

    streams = [asyncio.create_task(stream(count)) for count in (40, 30, 50, 45)]
    cut = asyncio.create_task(stream(1000))
    while cut not in (await asyncio.wait({cut}, timeout=0))[0] and not seen:
        await asyncio.sleep(0)
    cut.cancel()
    for task, count in zip(streams, (40, 30, None, 45), strict=True):
        got = await task
        assert got == list(range(len(got) if count is None else count))
    await asyncio.gather(cut, return_exceptions=True)
    assert seen == 10
    assert (room.taken, room.waiting) == (0, 0)


async def test_a_room_gives_turns_in_order_and_refuses_what_would_wait_too_long() -> None:
    room = Room(10, 20)
    await room.take(50)  # one is always taken
    first, second = asyncio.create_task(room.take(8)), asyncio.create_task(room.take(9))
    await asyncio.sleep(0)
    assert room.waiting == 17
    with pytest.raises(LimitError, match="too much is being written"):
        await room.take(4)
    third = asyncio.create_task(room.take(1))
    await asyncio.sleep(0)
    room.leave(50)
    await first
    assert not second.done()
    assert not third.done()  # it would fit, and has to wait for its turn
    second.cancel()
    await third
    room.leave(8)
    room.leave(1)
    async with room.holding(10):
        held = asyncio.create_task(room.take(10))
        await asyncio.sleep(0)
    held.cancel()  # admitted already: its room comes back
    await asyncio.gather(held, return_exceptions=True)
    assert (room.taken, room.waiting) == (0, 0)


class Even:
    """Begins work on runs of even numbers without tasks; two of them fail, in their two ways."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.runs: list[int] = []

    def part(self, number: int) -> int | None:
        return number if number % 2 == 0 else None

    def begin(self, parts: list[int]) -> asyncio.Future[list[int]] | None:
        if 6 in parts:
            return None
        self.begun += parts
        self.runs.append(len(parts))
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        if 8 in parts:
            future.set_exception(LimitError("eight"))
        else:
            asyncio.get_running_loop().call_soon(future.set_result, [10 * part for part in parts])
        return future

    def made(self, parts: list[int], done: asyncio.Future[list[int]]) -> list[int]:
        try:
            return done.result()
        except LimitError:
            return [-part for part in parts]


async def at_once(requests: AsyncIterator[list[int]]) -> AsyncIterator[list[int]]:
    """In place of `together`: these come in lists already."""
    async for batch in requests:
        yield batch


async def test_the_short_way_overtakes_nothing_and_is_not_overtaken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    even = Even()

    async def work(number: int) -> int:
        even.begun.append(number)
        await asyncio.sleep(0)
        return number

    found: list[int] = []
    async for ready in in_order(
        numbers(12), work, weigh=lambda _: 1, limit=99, budget=99, room=ROOM, short=even
    ):
        found += ready
    assert even.begun == list(range(12))
    assert found == [0, 1, 20, 3, 40, 5, 6, 7, -8, 9, 100, 11]

    async def batches() -> AsyncIterator[Any]:
        yield [0, 2, 4, 1, 3, 10]
        yield [12, 6, 14]
        yield [5, 8, 16, 18]

    monkeypatch.setattr("streamkit.handlers.pipeline.together", at_once)
    even.begun, even.runs, found = [], [], []
    async for ready in in_order(
        batches(),
        work,
        weigh=lambda _: 1,
        limit=99,
        budget=99,
        room=ROOM,
        short=even,
    ):
        found += ready
    assert even.begun == [0, 2, 4, 1, 3, 10, 12, 6, 14, 5, 8, 16, 18]
    assert even.runs == [3, 1, 3]
    assert found == [0, 20, 40, 1, 3, 100, 12, 6, 14, 5, -8, -16, -18]
    assert not ROOM.taken


@pytest.mark.parametrize(("limit", "budget"), [(4, 99), (99, 4)])
async def test_a_run_is_within_the_bounds(
    monkeypatch: pytest.MonkeyPatch, limit: int, budget: int
) -> None:
    async def batches() -> AsyncIterator[Any]:
        yield [0, 2, 4, 10, 12, 14, 16, 18, 20]

    async def work(number: int) -> int:
        raise AssertionError("not needed")

    monkeypatch.setattr("streamkit.handlers.pipeline.together", at_once)
    even, found = Even(), []
    async for ready in in_order(
        batches(),
        work,
        weigh=lambda _: 1,
        limit=limit,
        budget=budget,
        room=ROOM,
        short=even,
    ):
        found += ready
    assert even.runs == [4, 4, 1]
    assert found == [0, 20, 40, 100, 120, 140, 160, 180, 200]
    assert not ROOM.taken


async def test_what_the_short_way_has_begun_ends_with_the_iterator() -> None:
    class Never(Even):
        def begin(self, parts: list[int]) -> asyncio.Future[list[int]] | None:
            self.futures.append(asyncio.get_running_loop().create_future())
            return self.futures[-1]

        futures: list[asyncio.Future[list[int]]] = []  # noqa: RUF012  # one instance

    async def work(number: int) -> int:
        raise AssertionError("not needed")

    async def evens() -> AsyncIterator[int]:
        for number in (0, 2, 4):
            yield number

    never = Never()
    results = in_order(evens(), work, weigh=lambda _: 1, limit=9, budget=9, room=ROOM, short=never)
    waiting = asyncio.ensure_future(anext(results))
    while len(never.futures) < 3:
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert all(future.cancelled() for future in never.futures)
    assert not ROOM.taken
