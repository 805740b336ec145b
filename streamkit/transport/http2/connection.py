"""One connection's I/O side beside its output: what was read is given back, keepalive, leaving."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from h2.errors import ErrorCodes

from streamkit.config import TransportLimits
from streamkit.transport.http2.endings import TooBusyError
from streamkit.transport.http2.machine import Http2
from streamkit.transport.http2.output import Outgoing, Output
from streamkit.transport.peer import peer_certificate, peer_uid

__all__ = ["WireConnection"]

_LINGER = 1.0  # seconds in which a peer may read why it was cut
_GOAWAY_ALL = 2**31 - 1


class WireConnection(Output):
    """Flow control towards the peer, signs of life, and leaving."""

    def __init__(self, h2: Http2, transport: asyncio.Transport, limits: TransportLimits) -> None:
        super().__init__(h2, transport, limits)
        self.draining = False
        """A GOAWAY was sent or received: no new calls, the running ones go on."""
        self.on_idle: Callable[[], None] | None = None
        """Called when the last stream of a draining connection is over."""
        self.on_room: Callable[[], None] | None = None
        """Called when there may be room for another stream: one ended, or settings came."""
        self.last_received = self.loop.time()
        self._unread = 0  # bytes received and not yet taken, over all streams
        self._owed = 0  # of these, not given back to the connection's window
        self._keepalive: asyncio.TimerHandle | None = None
        self._interval = limits.keepalive_time
        self._asked = 0.0  # when the last sign of life was asked for
        self._linger: asyncio.TimerHandle | None = None
        self._tune(transport)

    def _tune(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            patience = self.limits.keepalive_time + self.limits.keepalive_timeout
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))

    # Flow control towards the peer -----------------------------------------------------------

    def received(self, size: int) -> None:
        """Bytes arrived for a stream: the connection's window is free again at once, so that one
        unread stream does not stop the others, until too much is unread in all."""
        self._unread += size
        if self._unread <= self.limits.connection_buffer:
            self.h2.give_back(size)
        else:
            self._owed += size

    def consumed(self, stream: Outgoing, size: int) -> None:
        """A stream's reader took bytes."""
        self._return(size)
        if stream.h2 is not None and not self.dead:
            self.h2.give_back_stream(stream.h2, size)
            if self.h2._data_to_send:
                self.schedule()

    def discarded(self, size: int) -> None:
        """Bytes were dropped with their stream."""
        self._return(size)
        if self.h2._data_to_send:
            self.schedule()

    def _return(self, size: int) -> None:
        self._unread -= size
        if self._owed:
            back = min(self._owed, size)
            self._owed -= back
            self.h2.give_back(back)

    def count_reset(self) -> None:
        """A stream was reset because of what the peer sent, or before anything came of it."""
        self.streams_failed += 1
        if not self.budgets.spend(self.budgets.resets):
            raise TooBusyError("too many resets")

    # Signs of life ----------------------------------------------------------------------------

    def initialize(self) -> None:
        """Start asking for signs of life."""
        self.keep_alive(self.limits.keepalive_time)

    def keep_alive(self, interval: float) -> None:
        """Ask after each `interval` of silence."""
        self._interval = interval
        self._look_in(interval)

    def _look_in(self, seconds: float) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._keepalive = self.loop.call_later(seconds, self._look, context=self.context)

    def _look(self) -> None:
        now = self.loop.time()
        timeout = self.limits.keepalive_timeout
        if self.last_received < self._asked:
            if now - self._asked >= timeout:
                self.abort("no sign of life from the peer")
            else:
                self._look_in(self._asked + timeout - now)
        elif now - self.last_received < self._interval:
            self._look_in(self.last_received + self._interval - now)
        else:
            self._asked = now
            self.h2.ping(b"stillup?")
            self.flush()
            self._look_in(min(self._interval, timeout))

    # Leaving ----------------------------------------------------------------------------------

    def go_away(self, *, final: bool = False, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Announce that no new calls are taken; running ones go on.

        The first announcement names no last stream, since requests may be on their way; the
        final one does, and what comes after it is refused.
        """
        self.draining = True
        if self.dead or self.is_closing():
            return
        last = self.h2.highest_inbound_stream_id if final else _GOAWAY_ALL
        if final:
            self.h2.refuse_from = last + 1
        self.h2.put_goaway(last, code)
        self.flush()

    def cut(self, code: ErrorCodes, reason: str) -> None:
        """End the connection now for what the peer did; it has a moment to read why."""
        if self.dead or self.is_closing():
            return
        note = reason.encode("ascii", "replace")
        self.h2.put_goaway(self.h2.highest_inbound_stream_id, code, note)
        self.finish()

    def finish(self) -> None:
        """Write what is in the output, read no more, and close when the peer does or soon.

        Closing at once would turn into a TCP reset when the peer is still sending, and a reset
        can destroy our last words in the peer's receive buffer.
        """
        if self.dead or self.is_closing():
            return
        self.write_out()
        self.dead = True
        if not self.is_closing():
            try:
                if self._transport.can_write_eof():
                    self._transport.write_eof()
            except (OSError, RuntimeError):
                self._transport.abort()  # the peer has gone already
            self._linger = self.loop.call_later(_LINGER, self._stop, self.limits.stall_timeout)

    def _stop(self, patience: float) -> None:
        """Close for good, a little later when there is still something to be written."""
        if self._transport.get_write_buffer_size() and patience > 0:
            self._linger = self.loop.call_later(_LINGER, self._stop, patience - _LINGER)
        else:
            self._transport.abort()

    def close(self) -> None:
        """Write what is in the output, then close; idempotent."""
        if not self.dead and not self.is_closing():
            self.write_out()
        for handle in (self._keepalive, self._flush_handle):
            if handle is not None:
                handle.cancel()
        if not self.dead:
            self.dead = True
            self._transport.close()

    def lost(self) -> None:
        """The transport is gone."""
        self.close()
        if self._linger is not None:
            self._linger.cancel()

    def room(self) -> None:
        """Tell those who wait that another stream may fit."""
        self.stream_close_waiter.set()
        if self.on_room is not None:
            self.on_room()

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport

    @property
    def peer_uid(self) -> int | None:
        """The user at the other end of a unix socket, as the kernel noted it at the connect."""
        return peer_uid(self._transport)

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        """The verified certificate of the peer as ssl.SSLSocket.getpeercert gives it."""
        return peer_certificate(self._transport)
