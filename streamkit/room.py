"""Room for what is in work, in bytes, over all calls of the process."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamkit.errors import LimitError

__all__ = ["Room"]


class Room:
    """So many bytes may be in work; who brings more waits, in the order of coming.

    What waits is held in memory, too, so that is bounded as well: beyond it LimitError is raised.
    One request is always taken, however large. Belongs to one event loop.
    """

    def __init__(self, most: int, most_waiting: int) -> None:
        self._most = most
        self._most_waiting = most_waiting
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self.taken = 0
        """Bytes in work now."""
        self.waiting = 0

    async def take(self, size: int, within: float | None = None) -> None:
        """Wait for room, `within` so many seconds; give it back with `leave`.

        Raises TimeoutError when there was none in time. After that, and after a cancellation,
        none is held.
        """
        if not self._waiters and self._fits(size):
            self.taken += size
            return
        if self.waiting + size > self._most_waiting and self.waiting:
            raise LimitError(
                "too much is being written to this server at once",
                hint="send it again in a moment",
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter = (future, size)
        self._waiters.append(waiter)
        self.waiting += size
        timer: asyncio.TimerHandle | None = None
        if within is not None:
            # In a context of its own: a timer must not keep what the caller's holds.
            timer = loop.call_later(within, _late, future, context=contextvars.Context())
        try:
            await future
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self.waiting -= size
                self._admit()
            elif not future.cancelled() and future.exception() is None:
                self.leave(size)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self, size: int) -> None:
        """Give room back."""
        self.taken -= size
        self._admit()

    @asynccontextmanager
    async def holding(self, size: int) -> AsyncGenerator[None]:
        """Room for as long as the block runs."""
        await self.take(size)
        try:
            yield
        finally:
            self.leave(size)

    def _fits(self, size: int) -> bool:
        return not self.taken or self.taken + size <= self._most

    def _admit(self) -> None:
        while self._waiters and self._fits(self._waiters[0][1]):
            future, size = self._waiters.popleft()
            self.waiting -= size
            if not future.done():
                self.taken += size
                future.set_result(None)


def _late(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
