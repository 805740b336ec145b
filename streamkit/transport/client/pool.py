"""The connections of one channel: the one that takes new streams, and those that are running out.

A stream that needs a connection is started at once, or waits in line while one is dialled or while
the server's limit of concurrent streams is reached; never longer than the timeout.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from grpclib.protocol import AbstractHandler, Peer
from h2.events import ConnectionTerminated

from streamkit.config import TransportLimits
from streamkit.errors import ConnectError, LimitError, StreamkitError
from streamkit.transport.client.attempt import WireAttempt
from streamkit.transport.client.request import ClientStream
from streamkit.transport.client.status import unreachable_error
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.tls import require_h2

__all__ = ["Address", "Pool"]

_POLITE_KEEPALIVE = 305.0
"""gRPC's servers allow a ping each five minutes, unless they are set otherwise."""
_RESETS = 100_000
"""A server that refuses all streams at once may do so; the limit guards servers."""
_CLOSE_TIMEOUT = 2.0


class _NoRequests(AbstractHandler):
    """A server does not call its client."""

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], None]) -> None:
        release_stream()

    def cancel(self, stream: Any) -> None:
        return None

    def close(self) -> None:
        return None


class Address:
    """Where a target is: `host:port` (IPv6 in brackets) or `unix:/path`."""

    __slots__ = ("authority", "host", "path", "port", "target")

    def __init__(self, target: str, default_port: int = 50051) -> None:
        self.target = target
        self.path: str | None = None
        self.host, self.port = "", default_port
        if target.startswith("unix:"):
            self.path = target.removeprefix("unix:")
            if self.path.startswith("//"):
                self.path = self.path[2:]
            self.authority = "localhost"
            return
        host, colon, port = target.rpartition(":")
        if not colon or (host.count(":") and not host.endswith("]")):
            host, port = target, str(default_port)  # a bare name, or a bare IPv6 address
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConnectError(f"{target!r} is not an address", hint="write it as host:port")
        self.host = host.removeprefix("[").removesuffix("]") or "localhost"
        self.port = int(port)
        self.authority = f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


class Pool:
    """Dials, hands streams to connections, replaces a connection that takes no more."""

    def __init__(
        self,
        address: Address,
        *,
        limits: TransportLimits,
        tls: ssl.SSLContext | None,
        connect_timeout: float,
        server_name: str | None = None,
    ) -> None:
        self._address = address
        self._limits = dataclasses.replace(limits, resets=max(limits.resets, _RESETS))
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._server_name = server_name
        self._keepalive = limits.keepalive_time
        self._current: WireProtocol | None = None
        self._alive: dict[WireProtocol, asyncio.Future[None]] = {}
        self._queue: dict[ClientStream, asyncio.TimerHandle] = {}
        self._dialling: asyncio.Task[None] | None = None
        self.closing = asyncio.Event()
        """Set in the moment that the pool is closed."""

    @property
    def target(self) -> str:
        return self._address.target

    def peer(self) -> Peer | None:
        connection = self.connection
        return None if connection is None else Peer(connection.connection.transport)

    @property
    def connection(self) -> WireProtocol | None:
        """The connection that takes new streams, if there is one."""
        current = self._current
        return current if current is not None and _usable(current) else None

    def submit(self, stream: ClientStream) -> None:
        """Start a stream as soon as there is a place for it; it fails when there will be none."""
        if self.closing.is_set():
            stream.fail(ConnectError("the channel is closed"))
            return
        current = self.connection
        if current is not None and not self._queue and _has_slot(current):
            stream.start(WireAttempt(stream, current))
            return
        loop = asyncio.get_running_loop()
        self._queue[stream] = loop.call_later(self._connect_timeout, self._give_up, stream)
        stream.on_done = partial(self._withdraw, stream)
        self._serve()

    def reset(self, reason: str) -> None:
        """Abort all connections; what runs on them ends with ConnectError."""
        for protocol in list(self._alive):
            protocol.connection.transport.abort()
            protocol.processor.close(reason)

    async def close(self) -> None:
        """Close all connections, cancel what runs, and wait for the end of all that."""
        gone = self.close_now()
        if gone:
            await asyncio.wait(gone, timeout=_CLOSE_TIMEOUT)
        for protocol in list(self._alive):
            protocol.connection.transport.abort()

    def close_now(self) -> list[asyncio.Future[None]]:
        """As `close`; return what it would wait for."""
        self.closing.set()
        for stream in list(self._queue):
            stream.fail(ConnectError("the channel is closed"))
        gone = list(self._alive.values())
        for protocol in list(self._alive):
            protocol.connection.go_away(final=True)
            protocol.processor.close("the channel is closed")
        if self._dialling is not None:
            self._dialling.cancel()
            gone.append(self._dialling)
        return gone

    def _serve(self) -> None:
        """Start those that wait, as far as there is room; dial if there is no connection."""
        while self._queue:
            current = self.connection
            if current is None:
                if self._dialling is None and not self.closing.is_set():
                    loop = asyncio.get_running_loop()
                    self._dialling = loop.create_task(self._dial())
                return
            if not _has_slot(current):
                return
            stream = next(iter(self._queue))
            self._withdraw(stream)
            stream.start(WireAttempt(stream, current))

    def _on_goaway(self, protocol: WireProtocol, event: ConnectionTerminated) -> None:
        note = event.additional_data or b""
        if note == b"too_many_pings":
            self._keepalive = max(2 * self._keepalive, _POLITE_KEEPALIVE)
        text = ascii(note[:100].decode("latin-1"))[1:-1]
        protocol.connection.reason = f"the server is going away{text and f' ({text})'}"
        self._serve()

    def _on_lost(self, protocol: WireProtocol) -> None:
        protocol.connection.room()  # a dial that waits for settings waits in vain
        gone = self._alive.pop(protocol, None)
        if gone is not None:
            _settle(gone)
        self._serve()

    def _withdraw(self, stream: ClientStream) -> None:
        timer = self._queue.pop(stream, None)
        if timer is not None:
            timer.cancel()
        stream.on_done = None

    def _give_up(self, stream: ClientStream) -> None:
        if self._current is None:
            error: StreamkitError = unreachable_error(
                self._address.target, TimeoutError(f"no answer within {self._connect_timeout:g} s")
            )
        else:
            error = LimitError(
                f"no free stream on {self._address.target} within {self._connect_timeout:g} s",
                hint="the server limits the concurrent calls of one connection",
            )
        stream.fail(error)

    async def _dial(self) -> None:
        error: StreamkitError | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                self._current = await self._connect()
        except TimeoutError:
            reason = TimeoutError(f"no answer within {self._connect_timeout:g} s")
            error = unreachable_error(self._address.target, reason)
        except StreamkitError as refusal:
            error = refusal
        except (OSError, ValueError) as failure:
            # ValueError: a host name that cannot be one, before anything is sent.
            error = unreachable_error(self._address.target, failure)
        finally:
            self._dialling = None
        if error is not None:
            for stream in list(self._queue):
                stream.fail(error)
        self._serve()

    async def _connect(self) -> WireProtocol:
        loop = asyncio.get_running_loop()
        address = self._address
        # Connected means that the server's settings are here: now its stream limit holds, and
        # something that accepts and stays silent is not taken for a server.
        settled = loop.create_future()
        make = partial(
            WireProtocol,
            _NoRequests(),
            self._limits,
            client=True,
            on_made=partial(self._on_made, settled),
            on_lost=self._on_lost,
        )
        tls: dict[str, Any] = {}
        if self._tls is not None:
            name = self._server_name or address.host or "localhost"
            tls = {"ssl": self._tls, "server_hostname": name, "ssl_shutdown_timeout": 0.25}
        if address.path is not None:
            _, protocol = await loop.create_unix_connection(make, address.path, **tls)
        else:
            _, protocol = await loop.create_connection(make, address.host, address.port, **tls)
        connection = protocol.connection
        try:
            require_h2(connection.transport)
            await settled
            if connection.dead or connection.is_closing():
                if connection.reason:
                    raise ConnectError(f"no connection to {address.target}: {connection.reason}")
                raise ConnectError(
                    f"{address.target} closed the connection at once",
                    hint="perhaps it expects TLS" if self._tls is None else "",
                )
        except BaseException:
            connection.transport.abort()
            raise
        connection.on_room = self._serve
        if self._keepalive != self._limits.keepalive_time:
            connection.keep_alive(self._keepalive)
        return protocol

    def _on_made(self, settled: asyncio.Future[None], protocol: WireProtocol) -> None:
        self._alive[protocol] = asyncio.get_running_loop().create_future()
        protocol.connection.on_room = partial(_settle, settled)
        protocol.processor.on_terminated = partial(self._on_goaway, protocol)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _usable(protocol: WireProtocol) -> bool:
    connection = protocol.connection
    return not (connection.draining or connection.dead or connection.is_closing())


def _has_slot(protocol: WireProtocol) -> bool:
    allowed: int = protocol.connection.h2.remote_settings.max_concurrent_streams
    return len(protocol.processor.streams) < allowed
