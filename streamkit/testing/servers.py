"""Servers and channels for the length of a test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from streamkit.access.gate import Gate
from streamkit.access.rules import Rules
from streamkit.config import TransportLimits
from streamkit.server import Server
from streamkit.testing.in_process import InProcess
from streamkit.transport import (
    Channel,
    Check,
    ClientCall,
    ClientInterceptor,
    GrpcServer,
    Servable,
    ServerInterceptor,
)
from streamkit.transport.server.servables import opened_methods

__all__ = ["connected", "serve"]


@asynccontextmanager
async def connected(
    handlers: Iterable[Servable],
    *,
    limits: TransportLimits | None = None,
    interceptors: Sequence[ServerInterceptor] = (),
    client_interceptors: Sequence[ClientInterceptor] = (),
    check: Check | None = None,
    carrier: Literal["socket", "inproc"] = "socket",
    access: Rules | None = None,
    token: str = "",
) -> AsyncIterator[Channel]:
    """Serve just these handlers and give a channel to them.

    On a private unix socket, or with `carrier="inproc"` without any: the same calls, quicker, with
    no HTTP/2 between.

        async with connected([UpdatesHandler(journal=journal)]) as channel:
            stub = StreamServiceStub(channel)

    With `access`, rules such as those of `Access`, each call is decided by them; the channel shows
    `token`.
    """
    handlers, limits = list(handlers), limits or TransportLimits()
    if access is not None:
        interceptors = [Gate(access, open_to=opened_methods(handlers)), *interceptors]
    if token:
        client_interceptors = [_showing(token), *client_interceptors]
    if carrier == "inproc":
        async with Channel(
            InProcess.target,
            limits=limits,
            interceptors=client_interceptors,
            carrier=InProcess(handlers, limits=limits, interceptors=interceptors, check=check),
        ) as channel:
            yield channel
        return
    with tempfile.TemporaryDirectory(prefix="streamkit-") as directory:
        path = f"{directory}/socket"
        server = GrpcServer(handlers, limits=limits, interceptors=interceptors, check=check)
        await server.start(path=path)
        try:
            async with Channel(
                f"unix:{path}", limits=limits, interceptors=client_interceptors
            ) as channel:
                yield channel
        finally:
            await server.close()


def _showing(token: str) -> ClientInterceptor:
    async def show(call: ClientCall[Any, Any], call_next: Callable[[], Awaitable[None]]) -> None:
        call.metadata["authorization"] = f"Bearer {token}"
        await call_next()

    return show


@asynccontextmanager
async def serve(*handlers: Servable, **settings: Any) -> AsyncIterator[str]:
    """Run a whole server on a free port and give its address.

    The settings are those of `streamkit.Server`; without `journal` it has a private store that is
    removed at the end.

        async with serve() as address, AsyncClient(address) as client:
            await client.publish("greetings", "hello")
    """
    settings = {"journal": ":memory:", "port": 0, **settings}
    async with Server(handlers, **settings) as server:
        yield server.address
