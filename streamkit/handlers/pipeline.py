"""Many requests of one stream in work at once, answered in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from streamkit.handlers.room import Room

__all__ = ["Short", "in_order"]

Q = TypeVar("Q", contravariant=True)
R = TypeVar("R", covariant=True)


class Short(Protocol[Q, R]):
    """A way to begin the work on some requests without a task for each."""

    def fits(self, request: Q) -> bool:
        """Whether it is such a request."""
        ...

    def begin(self, request: Q) -> asyncio.Future[Any] | None:
        """Begin at once; None: it is work like any other."""
        ...

    def made(self, request: Q, done: asyncio.Future[Any]) -> R:
        """What came of it, or the error that ends it all."""
        ...


class _Work(NamedTuple, Generic[Q, R]):
    """One request in work; its own `request` when it was begun the short way."""

    future: asyncio.Future[Any]
    weight: int
    request: Q | None


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
    begins with come before the work on the next one, too. What `short` begins needs no task, and
    takes its place among the others. The first error of `work` ends it all; an
    error of `requests` is raised after the results of what had arrived before. Closing the
    iterator cancels what is in work.
    """
    pending: deque[_Work[Q, R]] = deque()
    arrived = asyncio.Event()
    space = asyncio.Event()
    load = 0

    async def pull() -> None:
        nonlocal load
        fresh = False  # whether the newest task has yet to begin
        async for request in requests:
            weight = weigh(request)
            while pending and (len(pending) >= limit or load + weight > budget):
                space.clear()
                await space.wait()
            await room.take(weight)
            load += weight
            if short is not None and short.fits(request):
                if fresh:
                    await asyncio.sleep(0)
                    fresh = False
                begun = short.begin(request)
                if begun is not None:
                    pending.append(_Work(begun, weight, request))
                    arrived.set()
                    continue
            pending.append(_Work(loop.create_task(work(request)), weight, None))
            fresh = True
            arrived.set()
            if apart(request):
                # The work runs up to its first wait now, and tasks run in the order of creation.
                await asyncio.sleep(0)

    def done() -> None:
        nonlocal load
        weight = pending.popleft().weight
        load -= weight
        room.leave(weight)

    def result(done: _Work[Q, R]) -> R:
        if done.request is None or short is None:
            found: R = done.future.result()
            return found
        return short.made(done.request, done.future)

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
            results = [result(first)]
            while pending and pending[0].future.done():
                next_one = pending[0]
                done()
                results.append(result(next_one))
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
