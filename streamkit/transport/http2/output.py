"""What one connection writes: all that its streams have ready, in one go."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Protocol

from grpclib.config import Configuration
from grpclib.protocol import Connection
from h2.stream import H2Stream, StreamState

from streamkit.config import TransportLimits
from streamkit.transport.http2.budgets import Budgets
from streamkit.transport.http2.headers import FRAME
from streamkit.transport.http2.machine import Http2
from streamkit.transport.log import LOG
from streamkit.transport.peer import peer_name

__all__ = ["Outgoing", "Output"]

_LEADING = 16 * 1024  # bytes of a message that may leave ahead; a frame that every peer takes


class Outgoing(Protocol):
    """A stream, as far as what it sends is concerned."""

    dirty: bool
    pending_size: int
    data_sent: int
    h2: H2Stream | None

    @property
    def single(self) -> bool:
        """Whether what is pending is no more than one message."""
        ...

    def flush_out(self) -> None:
        """Move pending bytes into the output, as far as the windows allow."""
        ...


class Output(Connection):
    """The writing half of a connection: streams mark themselves, and leave together."""

    def __init__(self, h2: Http2, transport: asyncio.Transport, limits: TransportLimits) -> None:
        super().__init__(h2, transport, config=Configuration().__for_test__())
        self.h2 = h2
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.context = Context()
        """Of all callbacks here: a timer that took a call's context would keep that call alive
        until its time, even when it is cancelled."""
        self.budgets = Budgets(limits, self.loop.time)
        self.writable = True
        self.dead = False
        """Being cut: nothing is processed any more."""
        self.reason = ""
        """Why the connection ends, when this side knows."""
        self._peer_name = ""
        self._noted = 0  # of data_sent, what is accounted for
        self._dirty: list[Outgoing] = []
        self._blocked: set[Outgoing] = set()
        self._flush_handle: asyncio.Handle | None = None
        self.leads = False
        """Whether the next message may leave by `lead`: the turn before sent but one, if any."""
        self._led = False  # whether this turn's first message has left so
        self.stirred = False
        """Whether what was received has started or woken somebody, who may have an answer."""
        # asyncio's own transports join what is written in pieces, or (3.12.0 to 3.13.1,
        # CVE-2024-12254) never say that their buffer is full.
        self._gathers = not type(transport).__module__.startswith("asyncio.")
        transport.set_write_buffer_limits(high=limits.write_buffer)

    def mark(self, stream: Outgoing) -> None:
        """The stream has something for the next flush."""
        stream.dirty = True
        self._dirty.append(stream)
        self.leads = False
        if self._flush_handle is None:
            self._flush_handle = self.loop.call_soon(self._flush_soon, context=self.context)

    def lead(self, stream: Outgoing, prefix: bytes, body: bytes | memoryview) -> bool:
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
        except Exception as error:  # it ends this connection only
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

    def follow(self) -> None:
        """Flush behind those that what was received has started or woken: what they answer at once
        leaves in the turn of the loop that makes it, with one write for all of them."""
        if self.stirred or self.h2._data_to_send:
            self.stirred = False
            self.schedule()

    def _flush_soon(self) -> None:
        self._flush_handle = None
        try:
            self.flush()
        except Exception as error:  # it ends this connection only
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

    def unblock(self, stream: Outgoing | None) -> None:
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

    def drop(self, stream: Outgoing) -> None:
        """The stream is over."""
        self._blocked.discard(stream)

    def pause_writing(self) -> None:
        self.writable = False
        self.write_ready.clear()

    def resume_writing(self) -> None:
        self.writable = True
        self.write_ready.set()
        self.flush()

    def abort(self, reason: str) -> None:
        """Drop the connection without another word."""
        if not self.is_closing():
            self.reason = self.reason or reason
            LOG.warning("connection dropped", f"{reason}, peer {self.peer_name}")
            self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def peer_name(self) -> str:
        """The peer's address as text: "ipv4:host:port", "ipv6:[host]:port" or "unix:"."""
        if not self._peer_name:
            self._peer_name = peer_name(self._transport)
        return self._peer_name
