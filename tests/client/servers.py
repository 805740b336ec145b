"""Real servers for the client's tests: in this process, on a free port, in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from streamkit.config import Backoff
from streamkit.journal import open_journal
from streamkit.testing import FaultProxy, serve

QUICK = Backoff(first=0.02, longest=0.2)
"""Delays for tests: the same shape, fifty times as fast."""


@asynccontextmanager
async def memory_server(*handlers: Any, **settings: Any) -> AsyncIterator[str]:
    journal = await open_journal(":memory:")
    async with journal, serve(*handlers, journal=journal, **settings) as address:
        yield address


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for something that no event announces."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


class ThreadServer:
    """A server on a loop in a thread, for tests of code that has no loop of its own."""

    def __init__(self, *handlers: Any) -> None:
        self._handlers = handlers
        self.address = ""
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with memory_server(*self._handlers) as server, FaultProxy(server) as self.proxy:
            self.address = self.proxy.address
            self._ready.set()
            await self._stop.wait()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's loop, e.g. `refuse()` of its proxy."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def __enter__(self) -> ThreadServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
