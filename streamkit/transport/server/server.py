"""The gRPC server: listeners, their connections, and how they end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grpclib.encoding.base import CodecBase

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import InvalidArgumentError, PreconditionError
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.log import LOG
from streamkit.transport.server.aging import Aging
from streamkit.transport.server.calls import Calls
from streamkit.transport.server.checking import Check
from streamkit.transport.server.context import Context, ServerInterceptor
from streamkit.transport.server.descriptors import few_left, raise_limit, wait_with
from streamkit.transport.server.front import Front
from streamkit.transport.server.serving import Servable, Service
from streamkit.transport.server.web import Door, Guest

__all__ = ["GrpcServer"]

_BACKLOG = 1024  # connections that wait to be accepted; asyncio's own loop takes as many in one
_AT_ONCE = 8  # turn as it was told to let wait, and looks at the first of them turns later
_UNWINDING = 1.0  # seconds that cancelled handlers have to end after their connection is gone


class GrpcServer:
    """Serves betterproto, grpclib and google.protobuf services on any number of listeners.

    With a `door` the same port answers
    HTTP/1.1, and whatever is no gRPC over HTTP/2, by what that makes for the server's methods.
    `on_drain` is called once when the server begins to go away. `check` is called with each request
    message before its handler; a ValueError that it raises (pydantic's, too) is INVALID_ARGUMENT
    with the violations of fields as details.
    """

    def __init__(
        self,
        handlers: Sequence[Servable],
        *,
        codec: CodecBase | None = None,
        limits: TransportLimits | None = None,
        interceptors: Sequence[ServerInterceptor] = (),
        ssl: ssl.SSLContext | None = None,
        on_drain: Callable[[], None] | None = None,
        door: Callable[[Service], Door] | None = None,
        check: Check | None = None,
        on_call: Callable[[Context], None] | None = None,
    ) -> None:
        self._limits = TransportLimits() if limits is None else limits
        self._ssl = ssl
        self._on_drain = on_drain
        codec = StreamkitCodec() if codec is None else codec
        self._service = Service(handlers, codec, self._limits, interceptors, check, on_call)
        self._door = None if door is None else door(self._service)
        self._guests: set[Guest] = set()
        self._listeners: list[asyncio.Server] = []
        self._paths: list[str] = []
        self._connections: dict[WireProtocol, Aging] = {}
        self._draining = False
        self._closed: asyncio.Event = asyncio.Event()
        self._changed: asyncio.Event = asyncio.Event()

    # Listening --------------------------------------------------------------------------------

    async def start(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        """Listen on host and port (0: any free one), on a unix socket, or by a socket that listens
        already and goes on doing so afterwards. May be repeated."""
        if path is not None and (host is not None or port is not None):
            raise InvalidArgumentError("listen on a host and port or on a path, not both")
        if self._draining:
            raise PreconditionError("the server is going away")
        raise_limit(self._limits.max_connections)
        loop = asyncio.get_running_loop()
        secure = self._ssl
        timeout = None
        if secure is not None:
            secure.set_alpn_protocols(["h2"] if self._door is None else ["h2", "http/1.1"])
            timeout = self._limits.handshake_timeout
        made: asyncio.Server
        if listener is not None and listener.family == socket.AF_UNIX:
            # Its name is for whoever has made it to remove.
            kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            made = await loop.create_unix_server(
                self._protocol,
                sock=listener.dup(),
                backlog=_AT_ONCE,
                ssl=secure,
                ssl_handshake_timeout=timeout,
                **kept,
            )
        elif listener is not None:
            made = await loop.create_server(
                self._protocol,
                sock=listener.dup(),
                backlog=_AT_ONCE,
                ssl=secure,
                ssl_handshake_timeout=timeout,
            )
        elif path is not None:
            made = await loop.create_unix_server(
                self._protocol,
                path,
                backlog=_AT_ONCE,
                ssl=secure,
                ssl_handshake_timeout=timeout,
            )
            self._paths.append(path)
        else:
            made = await loop.create_server(
                self._protocol,
                host or "127.0.0.1",
                port or 0,
                backlog=_AT_ONCE,
                ssl=secure,
                ssl_handshake_timeout=timeout,
            )
        self._listeners.append(made)
        for sock in made.sockets:
            wait_with(sock, _BACKLOG)

    @property
    def addresses(self) -> list[str]:
        """Where the server listens: "host:port", "[host]:port", "unix:path"."""
        found = [f"unix:{path}" for path in self._paths]
        for listener in self._listeners:
            for sock in listener.sockets:
                name = sock.getsockname()
                if isinstance(name, tuple):
                    host = f"[{name[0]}]" if ":" in name[0] else name[0]
                    found.append(f"{host}:{name[1]}")
        return found

    @property
    def port(self) -> int:
        """The first TCP port."""
        for address in self.addresses:
            if not address.startswith("unix:"):
                return int(address.rpartition(":")[2])
        raise PreconditionError("the server listens on no TCP port")

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections) + len(self._guests)

    @property
    def service(self) -> Service:
        """The methods and what is around them, for other carriers of their calls."""
        return self._service

    @property
    def calls(self) -> int:
        """How many calls are running."""
        return sum(len(protocol.processor.streams) for protocol in self._connections)

    def _protocol(self) -> asyncio.Protocol:
        if self._door is None:
            return self._wire()
        door = self._door
        return Front(
            self._wire,
            lambda: door.guest(self._guest_made, self._guest_lost),
            patience=self._limits.preface_timeout,
            on_made=self._guest_made,
            on_lost=self._guest_lost,
        )

    def _guest_made(self, guest: Guest) -> bool:
        if self.connections >= self._limits.max_connections or self._draining:
            return False
        if guest.transport is not None and few_left(guest.transport):
            return False
        self._guests.add(guest)
        return True

    def _guest_lost(self, guest: Guest) -> None:
        self._guests.discard(guest)
        self._changed.set()

    def _wire(self) -> WireProtocol:
        return WireProtocol(
            Calls(self._service, self._door),
            self._limits,
            client=False,
            on_made=self._made,
            on_lost=self._lost,
        )

    def _made(self, protocol: WireProtocol) -> None:
        if self.connections >= self._limits.max_connections:
            protocol.connection.abort("too many connections")
            return
        if few_left(protocol.connection.transport):
            protocol.connection.abort("too few file descriptors for another connection")
            return
        calls = self._calls_of(protocol)
        protocol.connection.h2.make_room = calls.settle

        def expire() -> None:
            calls.drain(everything=True)

        self._connections[protocol] = Aging(protocol, self._limits, expire)
        if self._draining:
            protocol.leave()

    def _lost(self, protocol: WireProtocol) -> None:
        aging = self._connections.pop(protocol, None)
        if aging is not None:
            aging.stop()
        self._changed.set()

    # Leaving ----------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Go away within `grace` seconds, so that every caller learns it by a status.

        New connections and calls are refused; streaming replies end with UNAVAILABLE and the
        trailer `streamkit-reconnect: 1`; other calls may finish until the grace is over and get
        the same status then. Returns when the server is closed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        self._begin_drain()
        for protocol in list(self._connections):
            protocol.leave()
        for protocol in list(self._connections):
            self._calls_of(protocol).drain(everything=False)
        for guest in list(self._guests):
            guest.leave()
            guest.drain(everything=False)
        await self._empty(until - min(0.25, grace / 4))
        for protocol in list(self._connections):
            self._calls_of(protocol).drain(everything=True)
        for guest in list(self._guests):
            guest.drain(everything=True)
        await self._empty(until)
        await self.close()

    def _begin_drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        for listener in self._listeners:
            listener.close()
        if self._on_drain is not None:
            self._on_drain()

    @staticmethod
    def _calls_of(protocol: WireProtocol) -> Calls:
        calls = protocol.handler
        assert isinstance(calls, Calls)
        return calls

    async def _empty(self, until: float) -> None:
        """Wait until the last connection is gone, at most until a time of the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                while self.connections:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """End everything now: handlers are cancelled, connections closed. Idempotent."""
        self._begin_drain()
        tasks: list[asyncio.Task[None]] = []
        for protocol in list(self._connections):
            calls = self._calls_of(protocol)
            tasks += calls.tasks
            calls.drain(everything=True)
        for guest in list(self._guests):
            tasks += guest.tasks
            guest.drain(everything=True)
        # One turn of the loop: handlers unwind and their statuses go out.
        if tasks:
            await asyncio.wait(tasks, timeout=_UNWINDING)
        for protocol in list(self._connections):
            protocol.connection.go_away(final=True)
            protocol.connection.close()
        for guest in list(self._guests):
            guest.close()
        stubborn = [task for task in tasks if not task.done()]
        if stubborn:
            LOG.warning("handlers that do not end when cancelled", len(stubborn))
        self._remove_sockets()
        loop = asyncio.get_running_loop()
        await self._empty(loop.time() + _UNWINDING)
        for protocol in list(self._connections):
            protocol.connection.transport.abort()
        for guest in list(self._guests):
            guest.abort()
        await self._empty(loop.time() + _UNWINDING)
        for listener in self._listeners:
            await listener.wait_closed()
        self._service.close()
        self._closed.set()

    def _remove_sockets(self) -> None:
        for path in self._paths:
            Path(path).unlink(missing_ok=True)
        self._paths.clear()

    async def wait_closed(self) -> None:
        """Wait until `drain` or `close` has ended."""
        await self._closed.wait()
