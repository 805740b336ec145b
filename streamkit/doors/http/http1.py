"""HTTP/1.1: one connection, its requests one after another.

h11 reads requests and writes heads; the bytes of a body are put into chunks here, where a stream's
messages pass. Nothing that a peer sends costs more than `TransportLimits` say, behind this door as
behind the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import h11

from streamkit.config import TransportLimits
from streamkit.doors.http.outbox import Outbox
from streamkit.errors import ConnectError, DeadlineError, LimitError
from streamkit.transport import Guest, Visit, WebCall
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.log import LOG
from streamkit.transport.peer import peer_certificate, peer_name, peer_uid

__all__ = ["Http1"]

_AT_ONCE = 64
"""Pieces of a request that are looked at in one turn of the event loop: chunks of one byte cost the
sender nothing, and must not hold up everybody else."""
_FIELD_BYTES = 32
"""What a line of a head counts at least against `max_header_list`, as in HTTP/2: reading thousands
of empty ones takes longer than sending them."""
_SMALL = 16

_Accept = Callable[[WebCall, Callable[[], None]], Visit]


class Http1(Guest):
    """A connection that speaks HTTP/1.1."""

    def __init__(
        self,
        accept: _Accept,
        limits: TransportLimits,
        outbox: Outbox,
        on_made: Callable[[Guest], bool],
        on_lost: Callable[[Guest], None],
    ) -> None:
        self.limits = limits
        self.outbox = outbox
        self.loop = asyncio.get_running_loop()
        self._accept = accept
        self._on_made, self._on_lost = on_made, on_lost
        self._wire = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_list)
        self.transport: asyncio.Transport | None = None
        self._call: Http1Call | None = None
        self._visit: Visit | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.paused = False
        self._leaving = False
        self._lines = 0
        """Of the head that is coming."""
        self._heading = True
        """Whether some of a head may be here, which has to become whole in its time."""
        self._held = False
        """Whether the next request waits until the last answer is taken."""
        self._deaf = False

    @property
    def tasks(self) -> list[asyncio.Task[None]]:  # type: ignore[override]  # read only, there as here
        task = None if self._visit is None else self._visit.task
        return [] if task is None else [task]

    # The connection ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._on_made(self):
            transport.close()
            return
        self.transport.set_write_buffer_limits(high=self.limits.write_buffer)
        self._wait(self.limits.preface_timeout)

    def data_received(self, data: bytes) -> None:
        if self._call is None:
            if not self._heading:
                self._heading = True
                self._wait(self.limits.preface_timeout)
            self._lines += _lines(data)
        self._wire.receive_data(data)
        self._read()

    def eof_received(self) -> bool | None:
        return None  # whoever has sent its last byte waits for no stream

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        self._rest()
        if self._call is not None:
            self._call.lose()
        if self._visit is not None:
            self._visit.end(None)
        self._on_lost(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._call is not None:
            self._call.flush_out()
        elif self._held:
            self._held = False
            self._next()

    # What the server asks of it ------------------------------------------------------------------

    def leave(self) -> None:
        self._leaving = True
        if self._visit is None:
            self.close()

    def drain(self, *, everything: bool) -> None:
        if self._visit is not None:
            self._visit.drain(everything=everything)

    def close(self) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()
            if transport.get_write_buffer_size():
                self._wait(self.limits.stall_timeout, self.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # Requests -------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take what came: the head of a request, or some of its body."""
        left = _AT_ONCE
        try:
            while self.transport is not None and not self._deaf:
                if not left:
                    self.transport.pause_reading()
                    self.loop.call_soon(self._read_on)
                    break
                left -= 1
                if self._lines * _FIELD_BYTES > self.limits.max_header_list and self._call is None:
                    raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
                event = self._wire.next_event()
                if event is h11.NEED_DATA:
                    break
                if event is h11.PAUSED:
                    # A response comes first. What is sent ahead waits in the socket.
                    self.transport.pause_reading()
                    break
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    assert self._call is not None
                    self._call.feed(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._rest()
                    if self._call is not None:
                        self._call.all_here()
                elif isinstance(event, h11.ConnectionClosed):
                    break
        except h11.RemoteProtocolError as error:
            self._refuse(error)

    def _read_on(self) -> None:
        if self.transport is not None and not self._deaf and not self.transport.is_closing():
            self.transport.resume_reading()
            self._read()

    def _begin(self, request: h11.Request) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers
        ]
        size = sum(len(name) + len(value) + 32 for name, value in headers) + len(request.target)
        self._wait(self.limits.request_timeout)
        call = Http1Call(self, request, headers)
        self._call = call
        names = {name for name, _ in headers}
        if size > self.limits.max_header_list:
            self.answer(call, 431)
        elif request.http_version not in (b"1.0", b"1.1"):
            self.answer(call, 505)
        elif {"content-length", "transfer-encoding"} <= names:
            self.answer(
                call, 400
            )  # two lengths: what a proxy before us took for the end, may differ
        else:
            self._visit = self._accept(call, self._answered)

    def answer(self, call: Http1Call, status: int) -> None:
        """Answer without a body, and take no further request."""
        self._leaving = True
        call.start(status, [], length=0)
        call.end()
        self._answered()

    def refuse_rest(self, call: Http1Call) -> None:
        """The body is larger, or in smaller pieces, than any may be: nothing more is read of it."""
        self._leaving = self._deaf = True
        if self.transport is not None:
            self.transport.pause_reading()
        self._rest()
        call.fail(LimitError("the body is over the limit"))

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """What came is no HTTP/1.1: say so if that is possible, and close."""
        peer = "" if self.transport is None else peer_name(self.transport)
        LOG.warning("connection cut", f"{error}, peer {peer}", kind="HTTP/1.1")
        self._leaving = True
        if self._visit is not None:
            self._visit.end(None)
        if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(
                status_code=error.error_status_hint,
                headers=[("content-length", "0"), ("connection", "close")],
            )
            self.send(head)
        self.close()

    def _answered(self) -> None:
        """Whoever answered the request is done."""
        call, self._call, self._visit = self._call, None, None
        self._rest()
        if self.transport is None:
            return
        if call is not None and not call.ended:
            call.reset()  # half a response: nobody may take it for a whole one
            return
        states = (self._wire.our_state, self._wire.their_state)
        if self._leaving or states != (h11.DONE, h11.DONE):
            self.close()
            return
        if self.paused:
            # Whoever asks and takes no answers must not have them all kept here.
            self._held = True
            self._wait(self.limits.stall_timeout, self.abort)
        else:
            self._next()

    def _next(self) -> None:
        """Take the next request."""
        if self.transport is None or self._leaving:
            self.close()
            return
        self._wire.start_next_cycle()
        ahead = self._wire.trailing_data[0]
        self._lines = _lines(ahead)
        self._heading = bool(ahead)
        limits = self.limits
        self._wait(limits.preface_timeout if self._heading else limits.keepalive_time)
        self.transport.resume_reading()
        self._read()

    # Time -----------------------------------------------------------------------------------------

    def _wait(self, seconds: float, then: Callable[[], None] | None = None) -> None:
        self._rest()
        self._timer = self.loop.call_later(seconds, then or self._overdue)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> None:
        """No request in time, or only a part of one."""
        self._timer = None
        if self._call is not None:
            seconds = self.limits.request_timeout
            self._call.fail(DeadlineError(f"the request did not come whole within {seconds:g} s"))
        else:
            self.close()

    def send(self, event: h11.Response | h11.InformationalResponse | h11.Data) -> None:
        """Write what h11 makes of an event."""
        if self.transport is not None:
            self.transport.write(self._wire.send(event) or b"")

    def send_end(self) -> None:
        """Write the end of the body."""
        if self.transport is not None:
            self.transport.write(self._wire.send(h11.EndOfMessage()) or b"")


class Http1Call:
    """A WebCall on a connection of HTTP/1.1."""

    version = "1.1"
    __slots__ = (
        "_body", "_chunked", "_chunks", "_connection", "_expects", "_failed", "_here", "_pending",
        "_pieces", "_reader", "_received", "_scheduled", "_sender", "ended", "headers", "lost",
        "method", "peer", "peer_certificate", "peer_uid", "pending_size", "secure", "started",
        "target",
    )  # fmt: skip

    def __init__(self, connection: Http1, request: h11.Request, headers: Headers) -> None:
        self._connection = connection
        transport = connection.transport
        assert transport is not None
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("latin-1")
        self.headers = headers
        self.secure = transport.get_extra_info("ssl_object") is not None
        self.peer = peer_name(transport)
        self.peer_certificate = peer_certificate(transport)
        self.peer_uid = peer_uid(transport)
        self.lost = False
        self.started = False
        self.ended = False
        self.pending_size = 0
        self._chunks = request.http_version != b"1.0"
        self._chunked = False
        self._received = 0
        self._pieces = 0
        self._expects = any(n == "expect" and v.lower() == "100-continue" for n, v in headers)
        self._pending: list[bytes | memoryview] = []
        self._scheduled = False
        self._body: list[bytes] = []
        self._here = False
        self._failed: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    # The body of the request -------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Some of the body came."""
        limits = self._connection.limits
        self._received += len(data)
        self._pieces += 1
        small = self._pieces > limits.small_chunks and self._received < self._pieces * _SMALL
        if small or self._received > 2 * limits.max_message:  # in base64 it is 4/3
            self._body.clear()
            self._connection.refuse_rest(self)
        else:
            self._body.append(data)
        self._wake_reader()

    def all_here(self) -> None:
        """The body is whole."""
        self._here = True
        self._wake_reader()

    def fail(self, error: Exception) -> None:
        """Whoever reads gets this error."""
        self._failed = self._failed or error
        self._wake_reader()

    async def read(self, most: int) -> bytes:
        """As WebCall."""
        if self._expects and not self._here:
            self._expects = False
            self._connection.send(h11.InformationalResponse(status_code=100, headers=[]))
        while not self._here:
            if sum(map(len, self._body)) > most:
                break
            if self._failed is not None:
                raise self._failed
            self._reader = self._connection.loop.create_future()
            await self._reader
        data = b"".join(self._body)
        self._body.clear()
        if len(data) > most:
            raise LimitError(f"a body of more than {most} bytes is over the limit")
        return data

    def arriving(self, inflate: object) -> None:
        """As WebCall."""

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # The response ------------------------------------------------------------------------------

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """As WebCall."""
        if self.lost:
            return
        self.started = True
        fields = list(headers)
        self._chunked = length is None and self._chunks
        if length is not None:
            fields.append(("content-length", str(length)))
        if self._connection._leaving:
            fields.append(("connection", "close"))
        self._connection.send(h11.Response(status_code=status, headers=fields))

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """As WebCall."""
        if self.lost:
            return False
        self._pending += parts
        self.pending_size += sum(map(len, parts))
        if not self._scheduled:
            self._scheduled = True
            self._connection.outbox.add(self, self._connection.loop)
        return self.pending_size >= self._connection.limits.send_buffer

    def flush_soon(self) -> None:
        """What was written in this turn of the loop leaves now."""
        self._scheduled = False
        self._flush(anyway=False)

    def broken(self) -> None:
        """Nothing more can be written."""
        self._connection.abort()

    def flush_out(self) -> None:
        """As WebCall."""
        self._flush(anyway=False)

    def _flush(self, *, anyway: bool) -> None:
        connection = self._connection
        waits = connection.paused and not anyway
        if self.pending_size and not self.lost and not waits and self.method != "HEAD":
            pending = self._pending
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            self.pending_size = 0
            assert connection.transport is not None
            if self._chunked:
                connection.transport.write(connection.outbox.chunk(data))
            else:
                connection.send(h11.Data(data=bytes(data)))
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)

    async def drain(self) -> None:
        """As WebCall."""
        self.flush_out()
        await asyncio.sleep(0)
        while self.pending_size >= self._connection.limits.send_buffer and not self.lost:
            await self._progress()

    async def flushed(self) -> None:
        """As WebCall."""
        self.flush_out()
        while self.pending_size and not self.lost:
            await self._progress()

    async def _progress(self) -> None:
        self._sender = self._connection.loop.create_future()
        seconds = self._connection.limits.stall_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._sender
        except TimeoutError:
            self._connection.abort()
            raise LimitError(f"the peer took nothing for {seconds:g} s") from None

    def drop_pending(self) -> None:
        """As WebCall."""
        self._pending.clear()
        self.pending_size = 0

    def end(self) -> None:
        """As WebCall. What the caller has not taken is left to the connection to send."""
        if self.lost or self.ended:
            return
        self.ended = True
        self._flush(anyway=True)
        self._connection.send_end()

    def reset(self) -> None:
        """As WebCall: an ending without the last chunk."""
        self.lose()
        self._connection.abort()

    def lose(self) -> None:
        """Nobody waits any more."""
        self.lost = True
        self.drop_pending()
        self.fail(ConnectError("the caller is gone"))
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)


def _lines(data: bytes) -> int:
    """Count the lines of the head with which some bytes begin, as far as it is there."""
    end = data.find(b"\r\n\r\n")
    return data.count(b"\n") if end < 0 else data.count(b"\n", 0, end)
