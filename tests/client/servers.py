"""Real servers for the client's tests: in this process, on a free port, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from streamkit.config import Backoff
from streamkit.journal import open_journal
from streamkit.testing import serve

QUICK = Backoff(first=0.02, longest=0.2)
"""Delays for tests: the same shape, fifty times as fast."""


@asynccontextmanager
async def memory_server(**settings: Any) -> AsyncIterator[str]:
    journal = await open_journal(":memory:")
    async with journal, serve(journal=journal, **settings) as address:
        yield address


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for something that no event announces."""
    import asyncio

    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
