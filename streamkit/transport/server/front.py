"""One port for HTTP/2 and HTTP/1.1: the handshake of TLS or the first bytes decide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamkit.transport.server.web import Guest

__all__ = ["Front"]

_PREFACE = b"PRI"
"""How HTTP/2 begins; no method of HTTP/1.1 does."""


class Front(Guest):
    """A connection until it is known what it speaks; then another protocol has its transport."""

    def __init__(
        self,
        http2: Callable[[], asyncio.Protocol],
        http1: Callable[[], Guest],
        *,
        patience: float,
        on_made: Callable[[Guest], bool],
        on_lost: Callable[[Guest], None],
    ) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self._http2, self._http1 = http2, http1
        self._patience = patience
        self._on_made, self._on_lost = on_made, on_lost
        self._head = b""
        self.transport = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        if not self._on_made(self):
            transport.close()
            return
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._patience, self.abort)
        else:
            self._become(self._http2() if tls.selected_alpn_protocol() == "h2" else self._http1())

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._head.startswith(_PREFACE):
            self._become(self._http2())
        elif not _PREFACE.startswith(self._head):
            self._become(self._http1())

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gone()

    def _become(self, protocol: asyncio.Protocol) -> None:
        transport = self.transport
        assert transport is not None
        self._gone()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        head, self._head = self._head, b""
        if head and not transport.is_closing():
            protocol.data_received(head)

    def _gone(self) -> None:
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_lost(self)

    # As a guest: it has asked for nothing yet.

    def leave(self) -> None:
        self.abort()

    def drain(self, *, everything: bool) -> None:
        self.abort()

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
