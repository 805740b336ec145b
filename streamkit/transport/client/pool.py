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
from streamkit.transport.client.addresses import Addresses, Endpoint
from streamkit.transport.client.attempt import WireAttempt
from streamkit.transport.client.request import ClientStream
from streamkit.transport.client.status import unreachable_error
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.tls import require_h2

__all__ = ["Pool"]

_POLITE_KEEPALIVE = 305.0
"""gRPC's servers allow a ping each five minutes, unless they are set otherwise."""
_CLOSE_TIMEOUT = 2.0


class _NoRequests(AbstractHandler):
    """A server does not call its client."""

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], None]) -> None:
        release_stream()

    def cancel(self, stream: Any) -> None:
        return None

    def close(self) -> None:
        return None


@dataclasses.dataclass(slots=True, eq=False)
class _Link:
    """One connection, and where it leads."""

    protocol: WireProtocol
    endpoint: Endpoint
    authority: str
    gone: asyncio.Future[None]
    """Done when the connection is over."""

    @property
    def usable(self) -> bool:
        connection = self.protocol.connection
        return not (connection.draining or connection.dead or connection.is_closing())

    @property
    def has_slot(self) -> bool:
        """Whether the server lets another stream begin."""
        protocol = self.protocol
        return len(protocol.processor.streams) < protocol.connection.h2.most_streams


class Pool:
    """Dials, hands streams to connections, replaces a connection that takes no more."""

    def __init__(
        self,
        target: str,
        *,
        limits: TransportLimits,
        tls: ssl.SSLContext | None,
        connect_timeout: float,
        server_name: str | None = None,
    ) -> None:
        self._addresses = Addresses(target)
        self._limits = limits
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._server_name = server_name
        self._keepalive = limits.keepalive_time
        self._current: _Link | None = None
        self._alive: dict[WireProtocol, _Link] = {}
        self._queue: dict[ClientStream, asyncio.TimerHandle] = {}
        self._dialling: asyncio.Task[None] | None = None
        self.closing = asyncio.Event()
        """Set in the moment that the pool is closed."""

    @property
    def target(self) -> str:
        return self._addresses.target

    def peer(self) -> Peer | None:
        connection = self.connection
        return None if connection is None else Peer(connection.connection.transport)

    @property
    def connection(self) -> WireProtocol | None:
        """The connection that takes new streams, if there is one."""
        link = self._link
        return None if link is None else link.protocol

    @property
    def _link(self) -> _Link | None:
        current = self._current
        return current if current is not None and current.usable else None

    def submit(self, stream: ClientStream) -> None:
        """Start a stream as soon as there is a place for it; it fails when there will be none."""
        if self.closing.is_set():
            stream.fail(ConnectError("the channel is closed"))
            return
        link = self._link
        if link is not None and not self._queue and link.has_slot:
            stream.start(WireAttempt(stream, link.protocol), link.authority)
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
        gone = [link.gone for link in self._alive.values()]
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
            link = self._link
            if link is None:
                if self._dialling is None and not self.closing.is_set():
                    loop = asyncio.get_running_loop()
                    self._dialling = loop.create_task(self._dial())
                return
            if not link.has_slot:
                return
            stream = next(iter(self._queue))
            self._withdraw(stream)
            stream.start(WireAttempt(stream, link.protocol), link.authority)

    def _on_goaway(self, protocol: WireProtocol, event: ConnectionTerminated) -> None:
        note = event.additional_data or b""
        if note == b"too_many_pings":
            self._keepalive = max(2 * self._keepalive, _POLITE_KEEPALIVE)
        text = ascii(note[:100].decode("latin-1"))[1:-1]
        protocol.connection.reason = f"the server is going away{text and f' ({text})'}"
        self._avoid(protocol)
        self._serve()

    def _on_lost(self, protocol: WireProtocol) -> None:
        self._avoid(protocol)
        link = self._alive.pop(protocol, None)
        if link is not None:
            _settle(link.gone)
        self._serve()

    def _avoid(self, protocol: WireProtocol) -> None:
        link = self._alive.get(protocol)
        if link is not None:
            self._addresses.avoid(link.endpoint)

    def _withdraw(self, stream: ClientStream) -> None:
        timer = self._queue.pop(stream, None)
        if timer is not None:
            timer.cancel()
        stream.on_done = None

    def _give_up(self, stream: ClientStream) -> None:
        if self._current is None:
            error: StreamkitError = unreachable_error(
                self.target, TimeoutError(f"no answer within {self._connect_timeout:g} s")
            )
        else:
            error = LimitError(
                f"no free stream on {self.target} within {self._connect_timeout:g} s",
                hint="the server limits the concurrent calls of one connection",
            )
        self._withdraw(stream)
        stream.refuse(error)

    async def _dial(self) -> None:
        error: StreamkitError | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                self._current = await self._addresses.connect(self._connect, _discard)
        except TimeoutError:
            reason = TimeoutError(f"no answer within {self._connect_timeout:g} s")
            error = unreachable_error(self.target, reason)
        except StreamkitError as refusal:
            error = refusal
        except Exception as fault:  # whatever it is, those who wait must hear of it
            error = unreachable_error(self.target, fault)
        finally:
            self._dialling = None
        if error is not None:
            for stream in list(self._queue):
                self._withdraw(stream)
                stream.refuse(error)
        self._serve()

    async def _connect(self, endpoint: Endpoint) -> _Link:
        loop = asyncio.get_running_loop()
        address = endpoint.address
        # Connected means that the server's settings are here: now its stream limit holds, and
        # something that accepts and stays silent is not taken for a server.
        settled = loop.create_future()
        make = partial(
            WireProtocol,
            _NoRequests(),
            self._limits,
            client=True,
            on_made=partial(self._on_made, settled, endpoint),
            on_lost=self._on_lost,
        )
        tls: dict[str, Any] = {}
        if self._tls is not None:
            name = self._server_name or address.host or "localhost"
            tls = {"ssl": self._tls, "server_hostname": name, "ssl_shutdown_timeout": 0.25}
        if address.path is not None:
            _, protocol = await loop.create_unix_connection(make, address.path, **tls)
        else:
            _, protocol = await loop.create_connection(make, endpoint.place, address.port, **tls)
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
        return self._alive[protocol]

    def _on_made(
        self, settled: asyncio.Future[None], endpoint: Endpoint, protocol: WireProtocol
    ) -> None:
        authority = self._server_name or endpoint.address.authority
        gone = asyncio.get_running_loop().create_future()
        self._alive[protocol] = _Link(protocol, endpoint, authority, gone)
        protocol.connection.on_room = partial(_settle, settled)
        protocol.processor.on_terminated = partial(self._on_goaway, protocol)


def _discard(link: _Link) -> None:
    link.protocol.connection.transport.abort()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
