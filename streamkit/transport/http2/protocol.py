"""The asyncio protocol of both roles: bytes in, and whatever they are, no exception out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import cast

from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, H2Protocol
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from streamkit.config import TransportLimits
from streamkit.transport.http2.connection import WireConnection
from streamkit.transport.http2.cutter import FrameCutter
from streamkit.transport.http2.endings import NotHttp2Error
from streamkit.transport.http2.events import WireProcessor
from streamkit.transport.http2.machine import Http2
from streamkit.transport.http2.receiver import InPlaceProtocol, wasteful
from streamkit.transport.http2.stream import WireStream
from streamkit.transport.log import LOG

__all__ = ["WireProtocol"]

_PONG = 0.5  # seconds for the peer to answer before the final GOAWAY goes out anyway


class WireProtocol(H2Protocol):
    """One connection. `handler` accepts requests (server) or refuses them (client).

    `on_made` and `on_lost` tell the owner when the connection begins and when it is over.
    """

    connection: WireConnection
    processor: WireProcessor

    def __init__(
        self,
        handler: AbstractHandler,
        limits: TransportLimits,
        *,
        client: bool,
        on_made: Callable[[WireProtocol], None] | None = None,
        on_lost: Callable[[WireProtocol], None] | None = None,
    ) -> None:
        self._h2 = Http2(client=client, limits=limits)
        super().__init__(handler, Configuration().__for_test__(), self._h2.config)
        self.limits = limits
        self._on_made = on_made
        self._on_lost = on_lost
        self._cutter: FrameCutter[WireStream] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._frames = 0  # whole frames that came so far
        self._moved = 0.0  # when the last one did
        self._leaving = False
        self._receiver: InPlaceProtocol | None = None  # what stands for this at the transport
        self._behind: asyncio.Handle | None = None  # goes on with what came in an earlier turn
        self._last_call: asyncio.TimerHandle | None = None  # between the two GOAWAYs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection = WireConnection(self._h2, cast(asyncio.Transport, transport), self.limits)
        self.processor = WireProcessor(self.handler, self.connection)
        self.connection.on_idle = self._idle
        self._cutter = FrameCutter(
            self._h2,
            self.processor.streams,
            self.processor.process_all,
            self.processor.note_empty,
            self.processor.opened,
            self.processor.block,
        )
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.connection.abort("TLS without HTTP/2")
            return
        if wasteful(transport):
            self._receiver = InPlaceProtocol.take_over(self, self.connection.transport)
        self._h2.start()
        self.connection.write_out()
        self.connection.initialize()
        self._moved = self.connection.last_received
        self._watch = self._later(self.limits.preface_timeout, self._expect_settings)
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        connection, cutter = self.connection, self._cutter
        if connection.dead or cutter is None:
            return
        connection.last_received = connection.loop.time()
        try:
            cutter.feed(data)
        except Exception as error:  # no input may end more than its own connection
            self._fault(error)
        else:
            connection.data_received += len(data)
            connection.follow()
            self._watch_frames(cutter)
            if cutter.behind:
                self._pause()

    def _pause(self) -> None:
        """Let the other connections have their turn before the rest of what came is processed."""
        connection = self.connection
        if self._behind is None and not connection.is_closing():
            connection.transport.pause_reading()
            self._behind = connection.loop.call_soon(self._catch_up, context=connection.context)

    def _catch_up(self) -> None:
        self._behind = None
        self.data_received(b"")
        if self._behind is None and not self.connection.is_closing():
            self.connection.transport.resume_reading()

    def receive_in_place(self) -> None:
        """From now on receive the messages of streams that want it where they stay."""
        if self._receiver is None:
            self._receiver = InPlaceProtocol.take_over(self, self.connection.transport)
        self._receiver.places = True

    def place(self) -> memoryview | None:
        """Where the bytes that come next belong, when that is known ahead."""
        return None if self._cutter is None or self.connection.dead else self._cutter.place()

    @property
    def large_next(self) -> bool:
        """Whether what comes next is likely to be the head of a large frame."""
        return self._cutter is not None and self._cutter.large_next

    def placed(self, size: int) -> None:
        """As `data_received`, of bytes that were received in the place."""
        connection, cutter = self.connection, self._cutter
        if connection.dead or cutter is None:
            return
        connection.last_received = connection.loop.time()
        try:
            cutter.placed(size)
        except Exception as error:  # it ends this connection only
            self._fault(error)
        else:
            connection.data_received += size
            connection.follow()
            self._watch_frames(cutter)

    def _watch_frames(self, cutter: FrameCutter[WireStream]) -> None:
        """A frame that has begun must become whole in time, which is not a frame's time but that
        since the one before it: a busy connection is always inside of some frame."""
        if cutter.frames != self._frames:
            self._frames = cutter.frames
            self._moved = self.connection.last_received
        if cutter.waiting:
            if self._watch is None:
                self._watch = self._later(self.limits.request_timeout, self._look_again)
        elif self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        connection = self.connection
        return connection.loop.call_later(seconds, action, context=connection.context)

    def _look_again(self) -> None:
        """Cut the peer if nothing became whole for too long."""
        self._watch = None
        cutter = self._cutter
        if cutter is None or not cutter.waiting:
            return
        left = self._moved + self.limits.request_timeout - self.connection.loop.time()
        if left <= 0:
            self._overdue("a frame did not become whole")
        else:
            self._watch = self._later(left, self._look_again)

    def _expect_settings(self) -> None:
        self._watch = None
        if not self._frames:
            self._overdue("no HTTP/2 settings in time")
        else:
            self._look_again()

    def _overdue(self, reason: str) -> None:
        self._watch = None
        self.connection.abort(reason)

    def _fault(self, error: Exception) -> None:
        """What was received cannot be processed."""
        if isinstance(error, ProtocolError):
            code = ErrorCodes(error.error_code or ErrorCodes.PROTOCOL_ERROR)
            kind, text = type(error).__name__, str(error)
            if not isinstance(error, NotHttp2Error):
                # Of some errors h2 gives the number of the stream and nothing else.
                text = f"{kind}: {'stream ' if text.isdigit() else ''}{text}"
            self._fail(code, text, kind)
        else:
            LOG.warning("fault while reading a connection", repr(error), error)
            self._fail(ErrorCodes.INTERNAL_ERROR, "internal error")

    def _fail(self, code: ErrorCodes, reason: str, kind: str = "") -> None:
        """The peer broke the rules: say so and end this connection."""
        connection = self.connection
        connection.reason = connection.reason or reason
        LOG.warning("connection cut", f"{reason}, peer {connection.peer_name}", kind=kind)
        connection.cut(code, reason)
        self.processor.close(reason)

    def leave(self) -> None:
        """Take no more calls, let the running ones end, then close.

        First a GOAWAY that names no last stream and a PING; once the peer has answered it, it has
        read the GOAWAY, so the final one can name the last stream that is served.
        """
        if self._leaving or self.connection.dead:
            return
        self._leaving = True
        connection = self.connection
        connection.go_away()
        self._h2.ping(b"goingoff")
        connection.flush()
        self.processor.on_pong = self._leave_finally
        self._last_call = connection.loop.call_later(_PONG, self._leave_finally)

    def _leave_finally(self) -> None:
        if self._last_call is not None:
            self._last_call.cancel()
            self._last_call = None
        self.processor.on_pong = None
        self.connection.go_away(final=True)
        if not self.processor.streams:
            self._idle()

    def _idle(self) -> None:
        """The last call of a connection that takes no more is over."""
        if self._last_call is None:
            self.connection.flush()
            self.connection.finish()
            self.processor.close("going away")

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._watch, self._last_call, self._behind):
            if timer is not None:
                timer.cancel()
        if hasattr(self, "processor"):
            self.processor.close(self.connection.reason or _why(exc))
            self.connection.lost()
            if self._on_lost is not None:
                self._on_lost(self)


def _why(error: BaseException | None) -> str:
    """What the system says of the end of a connection."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number is not None else "closed by the peer"
