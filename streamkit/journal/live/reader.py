"""One reader of one stream: a position that walks from the store through memory to the present.

A reader is in one of three places, and passes on its own from one to the next: far behind it
reads pages from the history, nearer it scans the ring, at the end it takes what its route lists
and waits. When it is too slow for a place it is put back one; the position decides, so nothing is
lost and nothing comes twice. What it costs while it is slow is one position.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from streamkit.errors import StreamGapError
from streamkit.journal.base import Delivery, Item, Items, Loss, Position, Selector
from streamkit.journal.live.ring import Ring, Route

__all__ = ["Begin", "History", "Manner", "Page", "Reader"]

T = TypeVar("T")

_LATEST_KEYS = 16_384
"""With the policy "latest", so many keys are held back while history is read."""


class Page(NamedTuple, Generic[T]):
    """Wanted items after a position; everything up to `covered` was looked at.

    `oldest` is the oldest sequence that the store held in the same snapshot.
    """

    items: Sequence[Item[T]]
    covered: int
    oldest: int


History = Callable[[Selector, int, int], Awaitable[Page[T]]]
"""Reads stored items: selector, after this sequence, up to that one (which is stored)."""


Begin = Callable[[], Awaitable[Page[T]]]
"""Finds the place to start from: its page's `covered`; the page's items come first of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a reader wants its deliveries; the words are those of `Journal.read`."""

    heartbeat: float | None = None
    latest: bool = False
    tell_loss: bool = False


class Reader(Generic[T]):
    """Reads one selector's items of one ring and the history behind it.

    `deliveries` may be called once. Without a history, what the ring dropped is lost.
    """

    def __init__(
        self, ring: Ring[T], history: History[T] | None, selector: Selector, manner: Manner
    ) -> None:
        self._ring = ring
        self._history = history
        self._selector = selector
        self._manner = manner
        self._newest: dict[str, Item[T]] = {}
        self._skipped: dict[str, int] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # Kept: to ask for it is a call of the system in Python 3.11, for every wake-up of a reader.
        self._loop = asyncio.get_running_loop()

    async def stored(self, begin: Begin[T]) -> AsyncGenerator[Delivery[T], None]:
        """What is there from the beginning on, and no further."""
        first = await begin()
        position, end = first.covered, self._ring.newest
        yield self._at(position)
        if first.items:
            yield self._at(position, first.items)
        while position < end:
            delivery, position = await self._behind(position, end)
            if delivery is not None:
                yield delivery
        if self._newest:
            yield self._flush(position)

    async def live(self, begin: Begin[T]) -> AsyncGenerator[Delivery[T], None]:
        """What is there from the beginning on, then what comes, until the ring is closed."""
        ring = self._ring
        route = ring.join(self._selector)
        behind = 0
        if self._manner.heartbeat is not None:
            self._touch()
            self._tick()
        try:
            first = await begin()
            position, cursor = first.covered, -1
            yield self._at(position)
            if first.items:
                yield self._at(position, first.items)
            while True:
                delivery: Delivery[T] | None
                if cursor < route.base:
                    if position >= route.floor:
                        cursor = route.cursor_after(position)
                        ring.behind -= behind
                        behind = 0
                        continue
                    if ring.closed:
                        return
                    ring.behind += 1 - behind
                    behind = 1
                    delivery, position = await self._behind(position, ring.newest)
                elif cursor < route.sealed:
                    cursor, delivery = self._take(route, cursor)
                    position = delivery.position.sequence
                else:
                    # Of what is sealed, or pushed for others, nothing is left to deliver.
                    position = max(position, route.sealed_at if route.dirty else ring.newest)
                    if self._newest:
                        delivery = self._flush(position)
                    elif ring.closed:
                        return
                    elif self._is_quiet():
                        delivery = self._at(position)
                    else:
                        await self._wait(route)
                        continue
                if delivery is not None:
                    self._touch()
                    yield delivery
        finally:
            ring.leave(route)
            ring.behind -= behind
            if self._timer is not None:
                self._timer.cancel()

    def _take(self, route: Route[T], cursor: int) -> tuple[int, Delivery[T]]:
        if self._manner.latest:
            items = route.waiting_items(cursor)
            self._fold(items)
            return cursor + len(items), self._flush(route.sealed_at)
        return route.take(cursor, self._ring.epoch)

    async def _behind(self, position: int, end: int) -> tuple[Delivery[T] | None, int]:
        """One step through the ring or the history, at most to `end`, and the place reached."""
        ring = self._ring
        loss: Loss | None = None
        items: Sequence[Item[T]]
        if position >= ring.floor:
            items, covered = ring.scan(self._selector, position)
            await asyncio.sleep(0)  # a reader that has much to scan lets the others run
        elif self._history is None:
            loss = self._lose(position, min(ring.floor, end) + 1)
            items, covered = Items[T](), ring.floor
        else:
            page = await self._history(self._selector, position, end)
            items, covered = page.items, page.covered
            if page.oldest > position + 1:
                loss = self._lose(position, min(page.oldest, end + 1))
                covered = max(covered, page.oldest - 1)
        if covered > end:
            covered = end
            items = Items(item for item in items if item.sequence <= end)
        if self._manner.latest:
            self._fold(items)
            if loss is None and len(self._newest) < _LATEST_KEYS:
                return None, covered
            return self._flush(covered, loss), covered
        if items or loss is not None or self._is_quiet():
            return self._at(covered, items, loss), covered
        return None, covered

    def _lose(self, position: int, oldest: int) -> Loss:
        loss = Loss(position + 1, oldest - 1)
        self._ring.gaps += 1
        if self._manner.tell_loss:
            return loss
        raise StreamGapError(
            f"records {loss.first} to {loss.last} are no longer kept",
            oldest=oldest,
            newest=self._ring.newest,
            hint="start again from what is kept, or keep more with a longer retention",
        )

    def _fold(self, items: Sequence[Item[T]]) -> None:
        newest, skipped = self._newest, self._skipped
        for item in items:
            if newest.pop(item.key, None) is not None:
                skipped[item.key] = skipped.get(item.key, 0) + 1
            newest[item.key] = item  # moved to the end: by sequence

    def _flush(self, position: int, loss: Loss | None = None) -> Delivery[T]:
        items, skipped = Items(self._newest.values()), self._skipped
        self._newest, self._skipped = {}, {}
        return self._at(position, items, loss, skipped)

    def _at(
        self,
        position: int,
        items: Sequence[Item[T]] = (),
        loss: Loss | None = None,
        skipped: dict[str, int] | None = None,
    ) -> Delivery[T]:
        return Delivery(items, Position(self._ring.epoch, position), loss, skipped)

    def _touch(self) -> None:
        if self._manner.heartbeat is not None:
            self._quiet_since = self._loop.time()

    def _is_quiet(self) -> bool:
        heartbeat = self._manner.heartbeat
        if heartbeat is None or self._timer is None:
            return False
        return self._loop.time() - self._quiet_since >= heartbeat

    def _tick(self) -> None:
        """Wake the reader if it was quiet long enough. One timer for the reader's life: to set
        one for every wait would cost more than the wait."""
        assert self._manner.heartbeat is not None  # who has none sets no timer
        loop = self._loop
        due = self._quiet_since + self._manner.heartbeat
        if self._is_quiet():
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            due = loop.time() + self._manner.heartbeat
        self._timer = loop.call_at(due, self._tick)

    async def _wait(self, route: Route[T]) -> None:
        waiter = self._waiter = self._loop.create_future()
        route.waiting[waiter] = None
        try:
            await waiter
        finally:
            route.waiting.pop(waiter, None)
            self._waiter = None
