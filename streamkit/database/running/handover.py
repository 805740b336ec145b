"""The bounded way from a query's worker thread to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

from streamkit.errors import CallCancelledError

__all__ = ["Handover"]

T = TypeVar("T")


class Handover(Generic[T]):
    """A few items wait here; a worker that is ahead of its reader waits too, and so its cursor.

    One worker thread puts and ends, one task of `loop` gets and closes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._loop = loop
        self._size = size
        self._items: deque[T] = deque()
        self._space = threading.Condition()
        self._closed = False
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Worker: hand an item over. Raises CallCancelledError once the reader is gone."""
        with self._space:
            while len(self._items) >= self._size and not self._closed:
                self._space.wait()
            if self._closed:
                raise CallCancelledError("the reader is gone")
            self._items.append(item)
        self._notify()

    def end(self, error: BaseException | None = None) -> None:
        """Worker: nothing more comes; with an error the reader gets it after the items."""
        with self._space:
            if self._closed:
                return
            self._ended, self._error = True, error
        self._notify()

    async def get(self, timeout: float | None = None) -> T | None:
        """Reader: the next item, None at the end. Raises the worker's error, or TimeoutError."""
        while True:
            with self._space:
                if self._items:
                    item = self._items.popleft()
                    self._space.notify()
                    return item
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._waiter = self._loop.create_future()
            async with asyncio.timeout(timeout):
                await self._waiter

    def close(self, error: BaseException | None = None) -> None:
        """Loop: drop what waits, wake the worker; a reader that still reads gets the error."""
        with self._space:
            if not self._closed:
                self._closed = self._ended = True
                self._error = error
            self._items.clear()
            self._space.notify_all()
        self._wake()

    def _notify(self) -> None:
        if self._waiter is None:
            return  # the reader is not waiting: it looks here before it does
        with suppress(RuntimeError):  # the loop was closed with the query still running
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
