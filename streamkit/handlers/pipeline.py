"""Many requests of one stream in work at once, answered in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any, TypeVar

from streamkit.handlers.room import Room

__all__ = ["in_order"]

Q = TypeVar("Q")
R = TypeVar("R")


async def in_order(
    requests: AsyncIterable[Q],
    work: Callable[[Q], Coroutine[Any, Any, R]],
    *,
    weigh: Callable[[Q], int],
    limit: int,
    budget: int,
    room: Room,
    apart: Callable[[Q], bool] = lambda _: False,
) -> AsyncGenerator[list[R], None]:
    """Start `work` on every request as it arrives and yield the results in the requests' order.

    All results that are ready are yielded together. At most `limit` requests, and requests of a
    total weight of `budget`, are in work; beyond that nothing is read, one request is always
    taken. Each also takes its weight of `room`, which all streams share, before it is in work. Work
    is begun in the order of the requests; the tasks that the work on an `apart` request
    begins with come before the work on the next one, too. The first error of `work` ends it all; an
    error of `requests` is raised after the results of what had arrived before. Closing the
    iterator cancels what is in work.
    """
    pending: deque[tuple[asyncio.Task[R], int]] = deque()
    arrived = asyncio.Event()
    space = asyncio.Event()
    load = 0

    async def pull() -> None:
        nonlocal load
        async for request in requests:
            weight = weigh(request)
            while pending and (len(pending) >= limit or load + weight > budget):
                space.clear()
                await space.wait()
            await room.take(weight)
            load += weight
            pending.append((loop.create_task(work(request)), weight))
            arrived.set()
            if apart(request):
                # The work runs up to its first wait now, and tasks run in the order of creation.
                await asyncio.sleep(0)

    def done() -> None:
        nonlocal load
        _, weight = pending.popleft()
        load -= weight
        room.leave(weight)

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
            results = [await pending[0][0]]
            done()
            while pending and pending[0][0].done():
                task = pending[0][0]
                done()
                results.append(task.result())
            space.set()
            yield results
        await puller
    finally:
        puller.cancel()
        for task, _ in pending:
            task.cancel()
        await asyncio.gather(puller, *(task for task, _ in pending), return_exceptions=True)
        while pending:
            done()
