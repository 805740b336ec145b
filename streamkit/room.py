"""Room for what is in work, in bytes, over all calls of the process."""

from __future__ import annotations

import asyncio
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

    async def take(self, size: int) -> None:
        """Wait for room; give it back with `leave`. After a cancellation none is held."""
        if not self._waiters and self._fits(size):
            self.taken += size
            return
        if self.waiting + size > self._most_waiting and self.waiting:
            raise LimitError(
                "too much is being written to this server at once",
                hint="Send it again in a moment.",
            )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (future, size)
        self._waiters.append(waiter)
        self.waiting += size
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(size)
            else:
                self._waiters.remove(waiter)
                self.waiting -= size
                self._admit()
            raise

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
