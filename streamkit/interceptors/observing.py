"""What a server begins beside its calls so that they can be seen, and ends with itself."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Protocol

from streamkit.background import ended
from streamkit.interceptors.access_log import AccessLog
from streamkit.interceptors.calls import Calls
from streamkit.interceptors.lines import LineWriter
from streamkit.journal.base import Journal
from streamkit.transport import GrpcServer

__all__ = ["begin_access_log", "begin_metrics"]


class Observed(Protocol):
    """A server."""

    calls: Calls
    journal: Journal | None
    draining: bool


def begin_access_log(
    resources: AsyncExitStack, calls: Calls, path: str | os.PathLike[str], every: float | None
) -> None:
    """Write a line for each call that ends, and every so many seconds for one that lasts."""
    writer = LineWriter(path)
    resources.callback(writer.close)
    log = AccessLog(calls, writer.write, every=every)
    resources.push_async_callback(ended, asyncio.create_task(log.run()))


async def begin_metrics(
    resources: AsyncExitStack, address: str, server: Observed, grpc: GrpcServer
) -> int:
    """Let Prometheus read figures at an address; return its port. PreconditionError without the
    extra, ConnectError for an address that cannot be had."""
    from streamkit.interceptors.metrics import Metrics
    from streamkit.interceptors.scrape import answer_scrapes

    metrics = Metrics(
        server.calls,
        journal=lambda: server.journal,
        unknown=lambda: grpc.service.unknown,
        connections=lambda: grpc.connections,
        draining=lambda: server.draining,
    )
    scrapes = await answer_scrapes(metrics.text, address)
    resources.callback(scrapes.close)
    port: int = scrapes.sockets[0].getsockname()[1]
    return port
