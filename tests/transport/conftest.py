"""A server of the test's own, closed whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from streamkit.config import TransportLimits
from streamkit.transport import GrpcServer
from streamkit.transport.log import LOG
from tests.transport.raw import RawClient
from tests.transport.services import PlainCodec, Streams, Writes

Serve = Callable[..., Awaitable[GrpcServer]]
Dial = Callable[..., Awaitable[RawClient]]


@pytest.fixture(autouse=True)
def every_line_is_logged() -> None:
    """The shared rate limit must not make one test depend on another."""
    LOG._next.clear()
    LOG._held.clear()


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def writes() -> Writes:
    return Writes()


@pytest.fixture
async def serve(streams: Streams, writes: Writes) -> AsyncIterator[Serve]:
    """Start a server with the given settings; handlers default to `streams` and `writes`."""
    servers: list[GrpcServer] = []

    async def start(*handlers: Any, **settings: Any) -> GrpcServer:
        options = {k: settings.pop(k) for k in ("interceptors", "ssl", "on_drain") if k in settings}
        server = GrpcServer(
            handlers or (streams, writes),
            codec=PlainCodec(),
            limits=TransportLimits(**settings),
            **options,
        )
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Connect raw clients to a server."""
    clients: list[RawClient] = []

    async def connect(server: GrpcServer, *args: Any, **options: Any) -> RawClient:
        client = RawClient()
        clients.append(client)
        return await client.connect(server.addresses[0], *args, **options)

    yield connect
    for client in clients:
        await client.close()
