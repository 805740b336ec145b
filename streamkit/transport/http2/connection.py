"""One connection's I/O side: flushing all its streams together, keepalive, leaving."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextvars import Context

from grpclib.config import Configuration
from grpclib.protocol import Connection
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.stream import StreamState

from streamkit.config import TransportLimits
from streamkit.transport.http2.budgets import Budgets, QuietLog
from streamkit.transport.http2.cutter import TooBusyError
from streamkit.transport.http2.endings import StreamLost
from streamkit.transport.http2.machine import FRAME, Http2
from streamkit.transport.http2.stream import WireStream
from streamkit.transport.peer import peer_certificate, peer_name, peer_uid

__all__ = ["LOG", "WireConnection"]

LOG = QuietLog(logging.getLogger("streamkit.transport"))
"""Shared by all connections: a thousand peers that do the same wrong thing are one line."""
_LEADING = 16 * 1024  # bytes of a message that may leave ahead; a frame that every peer takes
_LINGER = 1.0  # seconds in which a peer may read why it was cut
_GOAWAY_ALL = 2**31 - 1


class WireConnection(Connection):
    """Flow control towards the peer, one write for everything that is ready, signs of life."""

    def __init__(self, h2: Http2, transport: asyncio.Transport, limits: TransportLimits) -> None:
        super().__init__(h2, transport, config=Configuration().__for_test__())
        self.h2 = h2
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.context = Context()
        """Of all callbacks here: a timer that took a call's context would keep that call alive
        until its time, even when it is cancelled."""
        self.writable = True
        self.draining = False
        """A GOAWAY was sent or received: no new calls, the running ones go on."""
        self.dead = False
        """Being cut: nothing is processed any more."""
        self.on_idle: Callable[[], None] | None = None
        """Called when the last stream of a draining connection is over."""
        self.on_room: Callable[[], None] | None = None
        """Called when there may be room for another stream: one ended, or settings came."""
        self.reason = ""
        """Why the connection ends, when this side knows."""
        self.budgets = Budgets(limits, self.loop.time)
        self.last_received = self.loop.time()
        self._noted = 0  # of data_sent, what is accounted for
        self._dirty: list[WireStream] = []
        self._blocked: set[WireStream] = set()
        self._flush_handle: asyncio.Handle | None = None
        self.leads = False
        """Whether the next message may leave by `lead`: the turn before sent but one, if any."""
        self._led = False  # whether this turn's first message has left so
        self._unread = 0  # bytes received and not yet taken, over all streams
        self._owed = 0  # of these, not given back to the connection's window
        self._keepalive: asyncio.TimerHandle | None = None
        self._interval = limits.keepalive_time
        self._asked = 0.0  # when the last sign of life was asked for
        self._linger: asyncio.TimerHandle | None = None
        # asyncio's own transports join what is written in pieces, or (3.12.0 to 3.13.1,
        # CVE-2024-12254) never say that their buffer is full.
        self._gathers = not type(transport).__module__.startswith("asyncio.")
        transport.set_write_buffer_limits(high=limits.write_buffer)
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

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> WireStream:
        stream = WireStream(self, stream_id=stream_id)
        stream.wrapper = wrapper
        return stream

    def check_open(self) -> None:
        """Raise StreamLost when no new stream can be opened here."""
        if self.draining or self.dead or self.is_closing():
            raise StreamLost("the connection is going away", refused=True)

    # Flow control towards the peer -----------------------------------------------------------

    def received(self, size: int) -> None:
        """Bytes arrived for a stream: the connection's window is free again at once, so that one
        unread stream does not stop the others, until too much is unread in all."""
        self._unread += size
        if self._unread <= self.limits.connection_buffer:
            self.h2.give_back(size)
        else:
            self._owed += size

    def consumed(self, stream: WireStream, size: int) -> None:
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

    # Writing ----------------------------------------------------------------------------------

    def mark(self, stream: WireStream) -> None:
        """The stream has something for the next flush."""
        stream.dirty = True
        self._dirty.append(stream)
        self.leads = False
        if self._flush_handle is None:
            self._flush_handle = self.loop.call_soon(self._flush_soon, context=self.context)

    def lead(self, stream: WireStream, prefix: bytes, body: bytes | memoryview) -> bool:
        """Write a message at once; False: it is to be put and waits for the flush.

        While messages come one at a time, each leaves in the turn of the loop that makes it, by
        the shortest way: the process has just woken for it, and whatever runs before the write is
        run with cold caches. What follows in the same turn leaves together when the loop comes
        around. After a turn of several messages the next one is expected to bring several too, and
        is waited for. Headers in the output may be followed by trailers, and are not sent ahead.
        """
        wire, h2 = stream.h2, self.h2
        size = len(prefix) + len(body)
        if (
            wire is None
            or h2._data_to_send
            or self._dirty
            or stream.pending_size
            or not 0 < size <= _LEADING
            or size > wire.outbound_flow_control_window
            or size > h2.outbound_flow_control_window
            or not self.writable
            or self.dead
            or self.is_closing()
        ):
            return False
        state = wire.state_machine.state
        if state is not StreamState.HALF_CLOSED_REMOTE and state is not StreamState.OPEN:
            return False
        head = FRAME.pack(size >> 8, size & 0xFF, 0, 0, wire.stream_id)
        try:
            self._transport.write(b"".join((head, prefix, body)))
        except Exception as error:
            self._broken(error)
        wire.outbound_flow_control_window -= size
        h2.outbound_flow_control_window -= size
        stream.data_sent += size
        self.data_sent += size
        self.budgets.framed(size, all_there_was=not h2.sendable(wire))
        self.leads = False
        self._led = True
        self.schedule()
        return True

    def schedule(self) -> None:
        """Flush when the loop comes around."""
        if self._flush_handle is None:
            self._flush_handle = self.loop.call_soon(self._flush_soon, context=self.context)

    def _flush_soon(self) -> None:
        self._flush_handle = None
        try:
            self.flush()
        except Exception as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        """A fault here may end this connection, never hang it."""
        LOG.warning("fault while writing a connection", repr(error), error)
        self._transport.abort()

    def flush(self) -> None:
        """Send what is ready on all streams with one write."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        led, self._led = self._led, False
        if self.dead:
            return
        if not self._dirty:
            self.leads = self.leads or led
        elif self.writable:
            self.leads = not led and len(self._dirty) == 1 and self._dirty[0].single
            self._flush_streams()
        if led:
            self._note_sent()
        self.write_out()

    def _flush_streams(self) -> None:
        dirty, self._dirty = self._dirty, []
        h2, most = self.h2, self.limits.write_buffer
        for index, stream in enumerate(dirty):
            stream.dirty = False
            stream.flush_out()
            if stream.pending_size:
                if self.writable:
                    self._blocked.add(stream)
                else:
                    stream.dirty = True
                    self._dirty.append(stream)
            if len(h2._data_to_send) >= most:
                # Whether the transport takes more is known only once it has this.
                self.write_out()
            if not self.writable:
                self._dirty += dirty[index + 1 :]
                break
        self._note_sent()

    def _note_sent(self) -> None:
        size = self.data_sent - self._noted
        if size:
            self._noted = self.data_sent
            self.last_data_sent = self.loop.time()
            self.budgets.wrote()

    def write_out(self) -> None:
        """Hand the output to the transport."""
        data = self.h2.take_output()
        if data and not self.is_closing():
            self._transport.write(data)
            if not self.writable:
                self._check_backlog()

    def write_parts(self, parts: list[bytes | memoryview]) -> None:
        """Hand the output and these parts of a frame to the transport, copied once at most."""
        if self.is_closing():
            return
        output = self.h2.take_output()
        # Empty output is still h2's own: a transport that keeps a view of it would freeze it.
        whole = [output, *parts] if output else parts
        if self._gathers:
            self._transport.writelines(whole)
        else:
            # As a view: what the socket does not take at once is then not copied twice.
            self._transport.write(memoryview(b"".join(whole)))

    def _check_backlog(self) -> None:
        if self._transport.get_write_buffer_size() > self.limits.control_backlog:
            self.abort("answers pile up that the peer does not read")

    def unblock(self, stream: WireStream | None) -> None:
        """A window opened: of one stream, or of all."""
        if stream is None:
            for blocked in self._blocked:
                if not blocked.dirty:
                    self.mark(blocked)
            self._blocked.clear()
        elif stream in self._blocked:
            self._blocked.discard(stream)
            if not stream.dirty:
                self.mark(stream)

    def drop(self, stream: WireStream) -> None:
        """The stream is over."""
        self._blocked.discard(stream)

    def pause_writing(self) -> None:
        self.writable = False
        self.write_ready.clear()

    def resume_writing(self) -> None:
        self.writable = True
        self.write_ready.set()
        self.flush()

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

    def abort(self, reason: str) -> None:
        """Drop the connection without another word."""
        if not self.is_closing():
            self.reason = self.reason or reason
            LOG.warning("connection dropped", f"{reason}, peer {self.peer_name}")
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

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def peer_name(self) -> str:
        """The peer's address as text: "ipv4:host:port", "ipv6:[host]:port" or "unix:"."""
        return peer_name(self._transport)

    @property
    def peer_uid(self) -> int | None:
        """The user at the other end of a unix socket, as the kernel noted it at the connect."""
        return peer_uid(self._transport)

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        """The verified certificate of the peer as ssl.SSLSocket.getpeercert gives it."""
        return peer_certificate(self._transport)
