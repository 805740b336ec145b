"""`streamkit serve --workers`, and what to ask its processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from streamkit.client import AsyncClient
from streamkit.generated.streamservice import ServerStatus
from tests.cli.tools import PATIENCE, ServerProcess
from tests.client.servers import QUICK

__all__ = ["at_each", "gone", "kill", "serving", "whole"]


@contextmanager
def serving(store: Path | str, *options: str, workers: int = 2) -> Iterator[ServerProcess]:
    process = ServerProcess(store, "--workers", str(workers), *options)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.stop()


@asynccontextmanager
async def at_each(address: str, workers: int = 2) -> AsyncIterator[list[AsyncClient]]:
    """A client for each worker, connected to it: which one a connection gets is the system's."""
    async with AsyncExitStack() as stack:
        found: dict[int, AsyncClient] = {}
        while len(found) < workers:
            client = await stack.enter_async_context(AsyncClient(address, backoff=QUICK))
            before = {w.number: w.connections for w in (await client.status()).workers}
            other = await stack.enter_async_context(AsyncClient(address, backoff=QUICK))
            after = {w.number: w.connections for w in (await other.status()).workers}
            for number, connections in after.items():
                if connections > before[number]:
                    found.setdefault(number, other)
        yield [found[number] for number in sorted(found)]


async def whole(client: AsyncClient, workers: int = 2) -> ServerStatus:
    """The status once every worker serves."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status = await client.status()
        told = [w for w in status.workers if w.pid and w.uptime]
        if len(told) == workers:
            return status
        assert time.monotonic() < deadline, status


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
