"""What a server begins beside its calls so that they can be seen, and ends with itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

from streamkit.background import ended
from streamkit.database import Databases
from streamkit.interceptors.access_log import AccessLog, line_of
from streamkit.interceptors.calls import Calls
from streamkit.interceptors.lines import LineWriter
from streamkit.journal.base import Journal
from streamkit.transport import GrpcServer

if TYPE_CHECKING:
    from streamkit.interceptors.metrics import Metrics

__all__ = ["begin_access_log", "begin_metrics", "begin_scrapes", "new_metrics"]


class Observed(Protocol):
    """A server."""

    calls: Calls
    journal: Journal | None
    draining: bool
    databases: Databases | None


def begin_access_log(
    resources: AsyncExitStack, calls: Calls, path: str | os.PathLike[str], every: float | None
) -> None:
    """Write a line for each call that ends, and every so many seconds for one that lasts."""
    writer = LineWriter(path, line_of)
    resources.callback(writer.close)
    log = AccessLog(calls, writer.write, every=every)
    resources.push_async_callback(ended, asyncio.create_task(log.run()))


async def begin_metrics(
    resources: AsyncExitStack, address: str, server: Observed, grpc: GrpcServer
) -> int:
    """Let Prometheus read figures at an address; return its port. PreconditionError without the
    extra, ConnectError for an address that cannot be had."""
    return await begin_scrapes(resources, address, new_metrics(server, grpc).text)


def new_metrics(server: Observed, grpc: GrpcServer) -> Metrics:
    """The figures of a server. PreconditionError without the extra."""
    from streamkit.interceptors.metrics import Metrics

    return Metrics(
        server.calls,
        journal=lambda: server.journal,
        unknown=lambda: grpc.service.unknown,
        connections=lambda: grpc.connections,
        draining=lambda: server.draining,
        databases=lambda: server.databases,
    )


async def begin_scrapes(
    resources: AsyncExitStack, address: str, text: Callable[[str], tuple[bytes, str]]
) -> int:
    """Answer with what `text` makes of an Accept header, in a thread; return the port. ConnectError
    for an address that cannot be had."""
    from streamkit.interceptors.scrape import answer_scrapes

    scrapes = await answer_scrapes(text, address)
    resources.callback(scrapes.close)
    port: int = scrapes.sockets[0].getsockname()[1]
    return port
