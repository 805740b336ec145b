"""Many requests of one stream in work at once, answered in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, TypeVar

from streamkit.room import Room
from streamkit.transport import together

__all__ = ["Short", "in_order"]

Q = TypeVar("Q", contravariant=True)
R = TypeVar("R")

_RUN = 512
"""Requests of one run at most: those before must not wait for too many behind them."""


class Short(Protocol[Q, R]):
    """A way to begin the work on runs of requests together, without a task for each."""

    def part(self, request: Q) -> Any:
        """What a run needs of it; None: it is work like any other."""
        ...

    def begin(self, parts: list[Any]) -> asyncio.Future[Any] | None:
        """Begin at once; None: each of them is work like any other."""
        ...

    def made(self, parts: list[Any], done: asyncio.Future[Any]) -> list[R]:
        """What came of each, or the error that ends it all."""
        ...


class _Work(NamedTuple):
    """One request in work, or a run of them, of which there are `parts`."""

    future: asyncio.Future[Any]
    weight: int
    requests: int
    parts: list[Any] | None


async def in_order(
    requests: AsyncIterable[Q],
    work: Callable[[Q], Coroutine[Any, Any, R]],
    *,
    weigh: Callable[[Q], int],
    limit: int,
    budget: int,
    room: Room,
    apart: Callable[[Q], bool] = lambda _: False,
    short: Short[Q, R] | None = None,
) -> AsyncGenerator[list[R], None]:
    """Start `work` on every request as it arrives and yield the results in the requests' order.

    All results that are ready are yielded together. At most `limit` requests, and requests of a
    total weight of `budget`, are in work; beyond that nothing is read, one request is always
    taken. Each also takes its weight of `room`, which all streams share, before it is in work. Work
    is begun in the order of the requests; the tasks that the work on an `apart` request
    begins with come before the work on the next one, too. What `short` begins needs no tasks, and
    takes its place among the others: requests that have arrived together and follow each other. The
    first error of `work` ends it all; an
    error of `requests` is raised after the results of what had arrived before. Closing the
    iterator cancels what is in work.
    """
    pending: deque[_Work] = deque()
    arrived = asyncio.Event()
    space = asyncio.Event()
    load = inside = 0
    fresh = False  # whether the newest task has yet to begin

    async def admit(weight: int, count: int) -> None:
        nonlocal load, inside
        while pending and (inside + count > limit or load + weight > budget):
            space.clear()
            await space.wait()
        await room.take(weight)
        load += weight
        inside += count

    def add(work: _Work) -> None:
        pending.append(work)
        arrived.set()

    async def alone(request: Q, weight: int) -> None:
        """Work like any other; it was let in."""
        nonlocal fresh
        add(_Work(loop.create_task(work(request)), weight, 1, None))
        fresh = True
        if apart(request):
            # The work runs up to its first wait now, and tasks run in the order of creation.
            await asyncio.sleep(0)

    async def run(requests: list[Q], parts: list[Any], weights: list[int]) -> None:
        nonlocal fresh
        if not parts or short is None:
            return
        weight = sum(weights)
        await admit(weight, len(parts))
        if fresh:
            await asyncio.sleep(0)
            fresh = False
        begun = short.begin(parts)
        if begun is not None:
            add(_Work(begun, weight, len(parts), parts))
        else:
            for request, its_own in zip(requests, weights, strict=True):
                await alone(request, its_own)

    async def pull() -> None:
        longest = min(limit, _RUN)
        async with aclosing(together(requests)) as arriving:
            async for batch in arriving:
                first = weight = 0
                parts: list[Any] = []
                weights: list[int] = []
                for place, request in enumerate(batch):
                    size = weigh(request)
                    part = None if short is None else short.part(request)
                    if parts and (part is None or weight + size > budget or len(parts) == longest):
                        await run(batch[first:place], parts, weights)
                        parts, weights, weight = [], [], 0
                    if part is None:
                        await admit(size, 1)
                        await alone(request, size)
                        continue
                    if not parts:
                        first = place
                    parts.append(part)
                    weights.append(size)
                    weight += size
                await run(batch[first:], parts, weights)

    def done() -> None:
        nonlocal load, inside
        _, weight, count, _ = pending.popleft()
        load -= weight
        inside -= count
        room.leave(weight)

    def result(done: _Work) -> list[R]:
        if done.parts is None or short is None:
            return [done.future.result()]
        return short.made(done.parts, done.future)

    loop = asyncio.get_running_loop()
    puller = loop.create_task(pull())
    puller.add_done_callback(lambda _: arrived.set())
    try:
        while True:
            while not pending and not puller.done():
                arrived.clear()
                await arrived.wait()
            if not pending:
                break
            first = pending[0]
            if not first.future.done():
                await asyncio.wait([first.future])
            done()
            results = result(first)
            while pending and pending[0].future.done():
                next_one = pending[0]
                done()
                results += result(next_one)
            space.set()
            yield results
        await puller
    finally:
        puller.cancel()
        for left in pending:
            left.future.cancel()
        await asyncio.gather(puller, *(left.future for left in pending), return_exceptions=True)
        while pending:
            done()
