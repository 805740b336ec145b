"""Other people's HTTP servers, on the loop of the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from tests.doors.http import ask


@asynccontextmanager
async def uvicorn(application: Any) -> AsyncIterator[str]:
    """Serve an application with uvicorn; gives its address."""
    module: Any = import_module("uvicorn")
    config = module.Config(application, port=0, log_level="error", lifespan="on")
    server = module.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # nothing of it can be awaited
        assert not serving.done(), "it did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def hypercorn(application: Any) -> AsyncIterator[str]:
    """Serve an application with hypercorn, over HTTP/1.1 and HTTP/2; gives its address."""
    config = import_module("hypercorn.config").Config()
    over = asyncio.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(200)
        config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 1.0
    [sock] = config.create_sockets().insecure_sockets
    address = f"127.0.0.1:{sock.getsockname()[1]}"
    config.create_sockets = lambda: _Sockets([sock])
    serve = import_module("hypercorn.asyncio").serve
    serving = asyncio.create_task(serve(application, config, shutdown_trigger=over.wait))
    async with ask(address, "GET", "/"):  # it answers once its application has started
        pass
    try:
        yield address
    finally:
        over.set()
        await serving


@asynccontextmanager
async def granian(application: Any) -> AsyncIterator[str]:
    """Serve an application with granian, whose HTTP is written in Rust; gives its address."""
    if find_spec("granian") is None:
        pytest.skip("granian is not installed: it is in the group `dev`")
    module: Any = import_module("granian.server.embed")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = module.Server(application, port=port, interface="asgi", log_enabled=False)
    serving = asyncio.create_task(server.serve())
    address = f"127.0.0.1:{port}"
    async with asyncio.timeout(10):
        while True:  # nothing of it can be awaited
            assert not serving.done(), "it did not start"
            with suppress(OSError):
                async with ask(address, "GET", "/"):
                    break
            await asyncio.sleep(0.01)
    try:
        yield address
    finally:
        server.stop()
        await serving


@dataclass
class _Sockets:
    insecure_sockets: list[socket.socket]
    secure_sockets: list[socket.socket] = field(default_factory=list)
    quic_sockets: list[socket.socket] = field(default_factory=list)
