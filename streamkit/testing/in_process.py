"""Calls without sockets: a channel's requests go to handlers in the same event loop.

What the handlers see is what they see behind a socket: the same interceptors, deadlines, statuses
and backpressure. Only HTTP/2 is left out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from grpclib.encoding.base import CodecBase

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import CallCancelledError, ConnectError, LimitError, StreamkitError
from streamkit.transport import Check, Servable, ServerInterceptor, Service
from streamkit.transport.client.request import ClientStream
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.http2.endings import StreamLost
from streamkit.transport.server.grpc_exchange import GrpcExchange
from streamkit.transport.server.request import Refusal, Request, read_request
from streamkit.transport.server.serving import Call

__all__ = ["InProcess"]

_WINDOW = 65_535  # bytes that may wait at the receiver, as with HTTP/2
_CANCEL = 8  # the code of an HTTP/2 stream that is cancelled
_UNWINDING = 1.0  # seconds that cancelled handlers have to end


class InProcess:
    """A `Channel`'s carrier to these handlers. Must be made where an event loop runs.

    channel = Channel("in-process", carrier=InProcess([handler]))
    """

    target = "in-process"

    def __init__(
        self,
        handlers: Iterable[Servable],
        *,
        codec: CodecBase | None = None,
        limits: TransportLimits | None = None,
        interceptors: Sequence[ServerInterceptor] = (),
        check: Check | None = None,
    ) -> None:
        self.service = Service(
            list(handlers),
            codec or StreamkitCodec(),
            limits or TransportLimits(),
            interceptors,
            check,
        )
        self.attempts: set[_Attempt] = set()
        self.closing = asyncio.Event()

    @property
    def calls(self) -> int:
        """How many calls are running."""
        return len(self.attempts)

    def submit(self, stream: ClientStream) -> None:
        """Start a call."""
        if self.closing.is_set():
            stream.fail(ConnectError("the channel is closed"))
        else:
            stream.start(_Attempt(stream, self), self.target)

    def peer(self) -> InProcess:
        """The server, as grpclib's stubs ask for it."""
        return self

    def addr(self) -> str:
        """What stands for an address."""
        return "inproc"

    def cert(self) -> None:
        """There is no certificate."""

    def drain(self, *, everything: bool = False) -> None:
        """As a server that goes away: streaming replies end with UNAVAILABLE; with `everything`
        all calls do."""
        for attempt in list(self.attempts):
            if attempt.call is not None:
                attempt.call.drain(everything=everything)

    def reset(self, reason: str) -> None:
        """Let every running call lose its connection."""
        for attempt in list(self.attempts):
            attempt.lose(StreamLost(reason))

    def close_now(self) -> list[asyncio.Task[None]]:
        """As `close`, for code that cannot wait; return the tasks that end."""
        self.closing.set()
        found = [attempt.call for attempt in self.attempts]
        tasks = [call.task for call in found if call is not None and call.task is not None]
        self.reset("the channel is closed")
        return tasks

    async def close(self) -> None:
        """End what runs, with ConnectError for its callers."""
        tasks = self.close_now()
        if tasks:
            await asyncio.wait(tasks, timeout=_UNWINDING)
        self.service.close()


class _Pipe:
    """One direction of a call: framed messages go in, and out as far as the receiver has room."""

    def __init__(self, buffer: ReceiveBuffer) -> None:
        self.buffer = buffer
        self.pending_size = 0
        self._pending: deque[bytes] = deque()
        self._ending = False
        self._waiters: set[asyncio.Future[None]] = set()

    def put(self, data: bytes) -> None:
        self._pending.append(data)
        self.pending_size += len(data)

    def end(self) -> None:
        self._ending = True

    def drop(self) -> None:
        self._pending.clear()
        self.pending_size = 0

    def flush(self) -> None:
        """Move over what there is room for."""
        while self._pending and self.buffer.size < _WINDOW:
            data = self._pending.popleft()
            self.pending_size -= len(data)
            self.buffer.feed(data)
        if self._ending and not self._pending:
            self.buffer.eof = True
        self.wake()

    def take(self) -> list[bytes]:
        messages, _ = self.buffer.take()
        self.flush()
        return messages

    async def changed(self) -> None:
        """Wait until something was moved, taken or lost."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Attempt:
    """The caller's end."""

    def __init__(self, owner: ClientStream, carrier: InProcess) -> None:
        self._owner = owner
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self.messages_in = ReceiveBuffer(owner.max_message)
        self.replies = _Pipe(self.messages_in)
        self.requests = _Pipe(ReceiveBuffer(carrier.service.limits.max_message))
        self.call: Call | None = None
        self.over = False
        """Whether the caller has its outcome, or has left."""

    @property
    def pending_size(self) -> int:
        return self.requests.pending_size

    def open(self, headers: Headers, end: bool) -> None:
        if end:
            self.put_end()
        self._carrier.attempts.add(self)
        # Not at once: to the caller no answer comes before the request is on its way.
        self._loop.call_soon(self._arrive, headers)

    def put(self, data: bytes) -> None:
        self.requests.put(data)
        self._loop.call_soon(self.requests.flush)

    def put_whole(self, data: bytes) -> bool:
        self.put(data)
        self.put_end()
        return True

    def put_end(self) -> None:
        self.requests.end()
        self._loop.call_soon(self.requests.flush)

    def take(self) -> list[bytes]:
        return self.replies.take()

    def changed(self) -> Awaitable[None]:
        return self.replies.changed()

    async def sent_some(self) -> None:
        await self.requests.changed()

    def leave(self) -> None:
        """The caller is done with it."""
        if not self.over:
            self.over = True
            self._gone()

    def lose(self, lost: StreamLost) -> None:
        """The call ends without a status."""
        if not self.over:
            self.over = True
            self._owner.on_lost(lost)
            self._gone()

    def answer(self, headers: Headers, *, end: bool) -> None:
        """Headers or trailers of the response."""
        if self.over:
            return
        if self._owner.initial is None:
            self._owner.on_headers(headers)
        elif end:
            self._owner.on_trailers(headers)
        if end:
            self.over = True
            self.replies.end()
            self.replies.flush()
            self._owner.on_ended()
        self._owner.wake()
        self.replies.wake()

    def _gone(self) -> None:
        self.replies.drop()
        self.requests.drop()
        self.replies.wake()
        self.requests.wake()
        if self.call is not None:
            self.call.end(None)

    def _arrive(self, headers: Headers) -> None:
        service = self._carrier.service
        asked = read_request(headers, service.codec.__content_subtype__, service.limits)
        if self.over:
            self._carrier.attempts.discard(self)
        elif isinstance(asked, Refusal):
            self._carrier.attempts.discard(self)
            if asked.headers is None:
                self.lose(StreamLost("the stream was reset by the peer", 1))
            else:
                self.answer(asked.headers, end=True)
        else:
            exchange = _Exchange(asked, self, service.codec, service.limits)
            self.call = service.start(exchange, self._ended)

    def _ended(self) -> None:
        """The handler's task is over."""
        self.call = None
        self._carrier.attempts.discard(self)
        self.lose(StreamLost("the stream is over", _CANCEL))


class _Exchange(GrpcExchange):
    """The handler's end, which is its own body."""

    carrier = "inproc"
    peer = "inproc"
    peer_certificate = None
    peer_uid = None

    def __init__(
        self, request: Request, attempt: _Attempt, codec: CodecBase, limits: TransportLimits
    ) -> None:
        super().__init__(request, self, codec)
        self._attempt = attempt
        self._requests, self._replies = attempt.requests, attempt.replies
        self._requests.buffer.inflate = request.inflate
        self._limits = limits
        self._flushing = False

    @property
    def lost(self) -> bool:
        return self._attempt.over

    @property
    def received_all(self) -> bool:
        return self._requests.buffer.eof

    @property
    def unread(self) -> int:
        return self._requests.buffer.size

    def reset(self) -> None:
        self._attempt.lose(StreamLost("the stream was reset by the peer", _CANCEL))

    def _put(self, headers: Headers, *, end: bool) -> None:
        self._check()
        if end:
            self._replies.drop()
        self._attempt.answer(headers, end=end)

    # The body ---------------------------------------------------------------------------------

    @property
    def pending_size(self) -> int:
        return self._replies.pending_size

    async def messages(self) -> list[bytes]:
        while not self._requests.buffer.ready:
            self._check()
            await self._requests.changed()
            self._requests.flush()
        return self._requests.take()

    async def announced(self) -> int:
        while not self._requests.buffer.ready:
            self._check()
            await self._requests.changed()
            self._requests.flush()
        return self._requests.buffer.announced

    def fail_reading(self, error: StreamkitError) -> None:
        self._requests.buffer.fail(error)
        self._requests.wake()

    def put_message(self, prefix: bytes, body: bytes) -> bool:
        self._check()
        self._replies.put(prefix + body)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush_out)
        return self._full

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        return self.put_message(b"", b"".join(parts))

    def flush_out(self) -> None:
        self._flushing = False
        self._replies.flush()

    def drop_pending(self) -> None:
        self._replies.drop()

    async def drain(self) -> None:
        self.flush_out()
        if not self._full:
            await asyncio.sleep(0)
        await self._until(lambda: not self._full)

    async def flushed(self) -> None:
        self.flush_out()
        await self._until(lambda: not self.pending_size)

    @property
    def _full(self) -> bool:
        return self.pending_size >= self._limits.send_buffer

    async def _until(self, sent: Callable[[], bool]) -> None:
        seconds = self._limits.stall_timeout
        while not sent():
            try:
                async with asyncio.timeout(seconds):
                    await self._replies.changed()
            except TimeoutError:
                self.drop_pending()
                raise LimitError(f"the peer took nothing for {seconds:g} s") from None
        self._check()

    def _check(self) -> None:
        if self._attempt.over:
            raise CallCancelledError("the caller is gone")
