"""One HTTP/2 stream, either role: what waits to be sent, what was received, how it ended.

Sending never waits by itself: data is put into the stream, the connection flushes all its streams
together when the loop comes around, and a sender that is ahead of its peer waits in `drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpclib.protocol import Stream
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.stream import H2Stream, StreamState

from streamkit.errors import LimitError, StreamkitError
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.http2.connection import WireConnection
from streamkit.transport.http2.endings import StreamLost

__all__ = ["WireStream"]

_CHUNK = 256 * 1024  # written to the transport at once; it may ask for a pause in between
_LARGE = 64 * 1024  # what is worth a write of its own, past the output buffer
_WHOLE = 16 * 1024  # a frame that every peer takes
_FEW = 8  # pieces of a frame that are not joined


class WireStream(Stream):
    """The stream that grpclib's server and client classes work on, with coalesced sending."""

    connection: WireConnection

    def __init__(self, connection: WireConnection, *, stream_id: int | None = None) -> None:
        # Not super().__init__(): its three asyncio.Events cost more than all of this.
        self.connection = connection
        self._h2_connection = connection.h2
        self.wrapper: Wrapper | None = None
        self.h2: H2Stream | None = None
        self.headers: Headers | None = None
        self.trailers: Headers | None = None
        self.lost: StreamLost | None = None
        """Set once: nothing more can be sent, nothing more will come."""
        self.messages_in = ReceiveBuffer(connection.limits.max_message)
        self._waiters: list[asyncio.Future[None]] = []
        self._ahead = 0  # bytes given back to the peer although they are still here
        self._send_buffer = connection.limits.send_buffer
        self._pending: list[bytes | memoryview] = []
        self.pending_size = 0
        """Bytes put and not yet sent."""
        self.answered = False
        """Whether the peer has been sent anything on it."""
        self.dirty = False
        """Whether the connection's next flush visits this stream; kept by the connection."""
        self._ending = False
        self._senders: list[asyncio.Future[None]] = []
        self._stall: LimitError | None = None
        if stream_id is not None:
            self.begin(stream_id)

    def begin(self, stream_id: int) -> None:
        """Bind to the HTTP/2 stream that was opened with this id."""
        self.id = stream_id
        self.h2 = self.connection.h2.streams.get(stream_id)
        self.connection.streams_started += 1
        self.connection.budgets.began()
        self.connection.stirred = True
        self.created = self.connection.last_stream_created = self.connection.loop.time()

    # Receiving --------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes arrived."""
        size = len(data)
        if self.lost is not None:
            self.connection.h2.give_back(size)
            return
        self.data_received += size
        self.connection.received(size)
        if self.messages_in.feed(data):
            self._wake()
        elif self._waiters:
            # The reader needs the rest of a message that may be larger than the window.
            self._ahead += size
            self.connection.consumed(self, size)

    def placed(self, size: int) -> None:
        """As `feed`, of bytes that were received in their place."""
        if self.lost is not None:
            self.connection.h2.give_back(size)
            return
        self.data_received += size
        self.connection.received(size)
        if self.messages_in.placed(size):
            self._wake()
        elif self._waiters:
            self._ahead += size
            self.connection.consumed(self, size)

    def fail_reading(self, error: StreamkitError) -> None:
        """The reader gets this error instead of more messages."""
        self.messages_in.fail(error)
        self._wake()

    async def messages(self) -> list[bytes]:
        """Return the whole messages that are here, waiting for at least one; [] at the end.

        Raises StreamLost after the last message when there was no proper end, and a
        StreamkitError for what the peer must not send.
        """
        buffer = self.messages_in
        while True:
            if buffer.ready:
                messages, freed = buffer.take()
                self._free(freed)
                if messages or buffer.eof:
                    return messages
                # Only the head of a message was here; now it is known how much it needs.
            if self.lost is not None:
                raise self.lost.fresh()
            await self._changed()

    async def announced(self) -> int:
        """As the body of an exchange has it. The peer sends no more than its window meanwhile."""
        buffer = self.messages_in
        while not buffer.ready and not buffer.announced and self.lost is None:
            await self._changed()
        return buffer.announced

    async def recv_data(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end of the stream."""
        while (data := self.messages_in.read(size)) is None:
            if self.lost is not None:
                raise self.lost.fresh()
            await self._changed()
        self._free(len(data))
        return data

    def _free(self, size: int) -> None:
        """The reader took `size` bytes."""
        if self._ahead:
            early = min(self._ahead, size)
            self._ahead -= early
            size -= early
        if size:
            self.connection.consumed(self, size)

    async def _changed(self) -> None:
        """Wait until something was received or the stream is lost."""
        held = self.messages_in.size - self._ahead
        if held > 0:
            self._ahead += held
            self.connection.consumed(self, held)
        waiter = self.connection.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        if self._waiters:
            self.connection.stirred = True
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def got_headers(self, headers: Headers) -> None:
        """Response headers arrived."""
        self.headers = headers
        self._wake()

    def got_trailers(self, trailers: Headers) -> None:
        """Trailers arrived."""
        self.trailers = trailers
        self._wake()

    def __ended__(self) -> None:
        self.messages_in.eof = True
        self._wake()

    def lose(self, error: StreamLost) -> None:
        """The stream is over; readers get what is here and then the error."""
        if self.lost is None:
            self.lost = error
            self._pending.clear()
            self.pending_size = 0
            self._wake()
            self._wake_sender()
            if self.wrapper is not None:
                self.wrapper.cancel(error)

    def __terminated__(self, reason: str) -> None:
        self.lose(StreamLost(reason))

    def settle(self) -> int:
        """Let what was received count as read; return the bytes still owed to the peer."""
        owed = self.messages_in.size - self._ahead
        self._ahead = self.messages_in.size
        return max(owed, 0)

    def discard(self) -> int:
        """Forget what was received and not taken; return the bytes still owed to the peer."""
        owed = self.messages_in.clear() - self._ahead
        self._ahead = 0
        return max(owed, 0)

    # Sending ----------------------------------------------------------------------------------

    def put(self, data: bytes | memoryview) -> None:
        """Add bytes to what the next flush sends."""
        if self.lost is not None:
            raise self.lost.fresh()
        if self.connection.leads and self.connection.lead(self, b"", data):
            return
        self._pending.append(data)
        self.pending_size += len(data)
        if not self.dirty:
            self.connection.mark(self)

    def put_message(self, prefix: bytes, body: bytes) -> bool:
        """Add one message; True: the sender is to wait in `drain`. The short form of `put`, since
        this runs for every message of a stream."""
        if self.lost is not None:
            raise self.lost.fresh()
        if not self.dirty and self.connection.leads and self.connection.lead(self, prefix, body):
            return False
        pending = self._pending
        pending.append(prefix)
        pending.append(body)
        self.pending_size = size = self.pending_size + len(body) + len(prefix)
        if not self.dirty:
            self.connection.mark(self)
        return size >= self._send_buffer

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        """As `put_message`, of messages in pieces, which go to the socket without being joined."""
        if self.lost is not None:
            raise self.lost.fresh()
        self._pending += parts
        self.pending_size += sum(map(len, parts))
        if not self.dirty:
            self.connection.mark(self)
        return self.full

    def put_whole(self, data: bytes) -> bool:
        """Put the only frame of the stream, which is its end, right behind the headers: whoever
        reads these has it at hand. False: it is too large, or has to wait."""
        wire, connection, size = self.h2, self.connection, len(data)
        h2 = connection.h2
        if (
            wire is None
            or self.lost is not None
            or size > _WHOLE
            or size > h2.sendable(wire)
            or not connection.writable
            or len(h2._data_to_send) >= connection.limits.write_buffer
        ):
            return False
        h2.put_data(wire, data, size, end=True)
        self.data_sent += size
        connection.data_sent += size
        connection.budgets.framed(size, all_there_was=not h2.sendable(wire))
        return True

    def put_end(self) -> None:
        """After everything put so far, end the stream in this direction."""
        self._ending = True
        if not self.dirty:
            self.connection.mark(self)

    @property
    def single(self) -> bool:
        """Whether what is pending is no more than one message: its prefix and its body."""
        return len(self._pending) <= 2

    @property
    def full(self) -> bool:
        """Whether the sender is to wait in `drain`."""
        return self.pending_size >= self._send_buffer

    async def drain(self) -> None:
        """Flush now and let the loop run; wait while the peer takes less than is put.

        LimitError when it takes nothing for the stall timeout.
        """
        self.connection.flush()
        if self.lost is None and not self.full:
            await asyncio.sleep(0)
        while self.full:
            await self._progress()
        if self.lost is not None:
            raise self.lost.fresh()

    async def flushed(self) -> None:
        """Wait until everything put is on its way. LimitError like `drain`."""
        if self.pending_size:
            self.connection.flush()
        while self.pending_size:
            await self._progress()
        if self.lost is not None:
            raise self.lost.fresh()

    async def _progress(self) -> None:
        """Wait until some of the pending bytes were sent."""
        connection = self.connection
        waiter = connection.loop.create_future()
        self._senders.append(waiter)
        timer = connection.loop.call_later(
            connection.limits.stall_timeout, self._stalled, waiter, context=connection.context
        )
        try:
            await waiter
        finally:
            timer.cancel()
            if waiter in self._senders:
                self._senders.remove(waiter)

    def _stalled(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            seconds = self.connection.limits.stall_timeout
            # The status that follows needs no window: it must not wait for these bytes again.
            self.drop_pending()
            self._stall = LimitError(f"the peer took nothing for {seconds:g} s")
            waiter.set_exception(self._stall)
            if not self.connection.writable:
                self.connection.abort("the peer stopped reading")

    def _wake_sender(self) -> None:
        senders, self._senders = self._senders, []
        for waiter in senders:
            if not waiter.done():
                waiter.set_result(None)

    def drop_pending(self) -> None:
        """Forget what was put and not sent."""
        self._pending.clear()
        self.pending_size = 0

    def flush_out(self) -> None:
        """Move pending bytes into the connection's output, as far as the windows allow."""
        wire = self.h2
        if wire is None or self.lost is not None:
            return
        size = self.pending_size
        if size:
            state = wire.state_machine.state
            if state is not StreamState.HALF_CLOSED_REMOTE and state is not StreamState.OPEN:
                self.drop_pending()
                return
            connection = self.connection
            if not connection.writable:
                return
            h2 = connection.h2
            allowed = h2.sendable(wire)
            if allowed <= 0:
                return
            pending = self._pending
            one = size <= allowed and size <= h2.max_outbound_frame_size and size <= _CHUNK
            if one and (size < _LARGE or len(pending) > _FEW):
                data = pending[0] if len(pending) == 1 else b"".join(pending)
                pending.clear()
                h2.put_data(wire, data, size, end=self._ending)
                self._ending = False
            else:
                size = self._flush_pieces(wire, min(allowed, size))
            self.pending_size -= size
            self.data_sent += size
            connection.data_sent += size
            connection.budgets.framed(size, all_there_was=size == allowed)
            if self._senders:
                self._wake_sender()
        if self._ending and not self.pending_size and not wire.closed:
            self._ending = False
            self.connection.h2.put_data(wire, b"", 0, end=True)

    def _flush_pieces(self, wire: H2Stream, allowed: int) -> int:
        """Send up to `allowed` bytes in frames of what is pending, where large pieces are not
        copied; return how many it were."""
        connection, h2, pending = self.connection, self.connection.h2, self._pending
        largest = min(h2.max_outbound_frame_size, _CHUNK)
        index = offset = sent = 0
        while sent < allowed and connection.writable:
            frames: list[bytes | memoryview] = []
            until = min(allowed, sent + _CHUNK)
            while sent < until:
                size = need = min(until - sent, largest)
                parts: list[bytes | memoryview] = []
                while need:
                    part = memoryview(pending[index])[offset : offset + need]
                    parts.append(part)
                    need -= len(part)
                    offset += len(part)
                    if offset == len(pending[index]):
                        index, offset = index + 1, 0
                frames.append(h2.data_head(wire, size))
                frames += parts if len(parts) <= _FEW else (b"".join(parts),)
                sent += size
            connection.write_parts(frames)
        del pending[:index]
        if offset:
            pending[0] = memoryview(pending[0])[offset:]
        return sent

    def put_headers(
        self, headers: Headers, *, end_stream: bool = False, key: str | None = None
    ) -> None:
        """Add a header block to the output now: what is pending must be flushed or dropped.

        A `key` stands for these headers alone, on every stream of the connection.
        """
        if self.lost is not None:
            raise self.lost.fresh()
        assert self.id is not None
        self.answered = True
        connection, wire = self.connection, self.h2
        if wire is None or not connection.h2.put_response(wire, key, headers, end=end_stream):
            connection.h2.send_headers(self.id, headers, end_stream=end_stream)
        connection.schedule()

    def reset_nowait(self, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Send RST_STREAM unless the stream is over."""
        if self.id is not None:
            self.drop_pending()
            self.connection.h2.reset(self.id, error_code)
            self.connection.schedule()

    @property
    def ended_here(self) -> bool:
        """Whether this side has sent its last."""
        return self.h2 is not None and self.h2.state_machine.state is StreamState.HALF_CLOSED_LOCAL

    @property
    def closable(self) -> bool:
        return self.lost is None and self.h2 is not None and not self.h2.closed
