"""One call on a channel, as its user sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from grpclib.encoding.base import CodecBase
from multidict import MultiDict

from streamkit.config import TransportLimits
from streamkit.errors import (
    CallCancelledError,
    DeadlineError,
    InternalError,
    PreconditionError,
    StreamkitError,
    internal,
)
from streamkit.framing import PREFIX, prefix
from streamkit.transport.client.interceptors import CallNext, Onion
from streamkit.transport.client.request import ClientStream
from streamkit.transport.client.service_config import Retrying
from streamkit.transport.grpc.compression import compress
from streamkit.transport.grpc.deadline import Served
from streamkit.transport.grpc.metadata import (
    Headers,
    Metadata,
    decode_metadata,
    encode_metadata,
    encode_timeout,
)
from streamkit.transport.http2.blocks import CallHeaders

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["CallSettings", "Carrier", "ClientCall", "ClientInterceptor"]

_METHODS = 256  # whose headers are kept
_LARGE = 64 * 1024  # bytes of a message that are not copied behind its prefix

Request = TypeVar("Request")
Reply = TypeVar("Reply")


ClientInterceptor = Callable[["ClientCall[Any, Any]", CallNext], Awaitable[None]]
"""`async def interceptor(call, call_next)`: before `await call_next()` the call is not sent yet and
its `metadata` may be changed; after it the call is over, or its error is raised from there. The
same for all four kinds of calls."""


class Carrier(Protocol):
    """What takes a channel's requests to their server."""

    closing: asyncio.Event
    """Set when it is closed."""

    @property
    def target(self) -> str:
        """The server's address, for messages."""
        ...

    def submit(self, stream: ClientStream) -> None:
        """Start a stream as soon as there is a place for it; it fails when there will be none."""
        ...

    def peer(self) -> Any:
        """What grpclib calls a peer, if there is a connection."""
        ...

    def reset(self, reason: str) -> None:
        """Lose all connections; what runs on them ends with ConnectError."""
        ...

    async def close(self) -> None:
        """End everything: running and later streams fail with ConnectError."""
        ...

    def close_now(self) -> object:
        """As `close`, for code that cannot wait."""
        ...


class CallSettings:
    """What all calls of a channel share."""

    __slots__ = ("_common", "base_headers", "codec", "interceptors", "limits", "pool")

    def __init__(
        self,
        pool: Carrier,
        codec: CodecBase,
        base_headers: Headers,
        interceptors: Sequence[ClientInterceptor],
        limits: TransportLimits,
    ) -> None:
        self.pool = pool
        self.codec = codec
        self.base_headers = base_headers
        self.interceptors = interceptors
        self.limits = limits
        self._common: dict[tuple[str, str], Headers] = {}

    def headers(self, method: str, authority: str) -> CallHeaders:
        """What is common to the requests of all calls of a method."""
        key = (method, authority)
        common = self._common.get(key)
        if common is None:
            if len(self._common) >= _METHODS:
                self._common.clear()
            common = [(":path", method), (":authority", authority), *self.base_headers]
            self._common[key] = common
        return CallHeaders(key, common)


class ClientCall(Generic[Request, Reply]):
    """A call, used as an async context manager: entering sends it, leaving ends it in any case.

    Entering waits for a connection and for room on it. Every failure is a StreamkitError, raised by
    whichever method meets it; messages that arrived before it are given out first, except after a
    deadline or `cancel`, which are immediate. A cancelled task gets its CancelledError.
    """

    def __init__(
        self,
        settings: CallSettings,
        method: str,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        request: Request | None,
        metadata: Metadata,
        deadline: float | None,
        served: Served | None = None,
        retrying: Retrying | None = None,
        compression: str,
        decoder: Callable[[bytes], Reply] | None = None,
    ) -> None:
        self.method = method
        self.metadata = metadata
        """The request's; interceptors may change it until the call is sent."""
        self.loop = asyncio.get_running_loop()
        self.deadline = deadline
        """In seconds of the event loop's clock, or None."""
        self._own_deadline = deadline
        self._retrying = retrying
        self._served: Served | None = None
        left = None if served is None else served.time_left
        if left is not None:
            inherited = asyncio.get_running_loop().time() + left
            if deadline is None or inherited < deadline:
                self.deadline, self._served = inherited, served
        self._settings = settings
        self._request_type = request_type
        self._request = request
        self._compression = compression
        self._in_place = decoder is not None
        self._decode = decoder or _decoder(settings.codec, reply_type)
        self._stream: ClientStream | None = None
        self._timer: TimerHandle | None = None
        self._onion: Onion[ClientCall[Any, Any]] | None = None
        self._pending: list[Reply] = []
        self._fields: Headers = []  # the metadata, as it is sent
        self._trailing: Metadata | None = None

    async def __aenter__(self) -> ClientCall[Request, Reply]:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave(error)

    @property
    def error(self) -> StreamkitError | None:
        """How the call failed; None while it runs, and when it ended well."""
        return None if self._stream is None else self._stream.error

    @property
    def begun(self) -> bool:
        """Whether the response has begun: its metadata is here."""
        return self._stream is not None and bool(self._stream.initial)

    @property
    def done(self) -> bool:
        """Whether the outcome is known; messages may still wait to be received."""
        return self._stream is not None and self._stream.done

    @property
    def trailing_metadata(self) -> Metadata | None:
        """The metadata sent with the status; None before it has come."""
        if self._trailing is None and self._stream is not None and self._stream.trailers:
            self._trailing = _read_metadata(self._stream.trailers)
        return self._trailing

    async def open(self) -> None:
        """Send the call; `async with` does it."""
        if self._settings.interceptors:
            self._onion = Onion(self._settings.interceptors, self, self._open)
            await self._onion.enter()
        else:
            await self._open()

    async def leave(self, error: BaseException | None = None) -> None:
        """End the call, whatever its state; `async with` does it."""
        stream = self._stream
        if stream is not None and self._timer is not None:
            self._timer.cancel()
        try:
            if stream is not None:
                stream.close()
        finally:
            if self._onion is not None:
                await self._onion.exit(error)

    def abandon(self) -> None:
        """As `leave`, for a call that nobody holds any more: its interceptors are closed."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._onion is not None:
            self._onion.close()

    async def initial_metadata(self) -> Metadata:
        """Wait for the response to begin; return the metadata that it began with."""
        stream = self._opened()
        while stream.initial is None and not stream.done:
            await stream.wait()
        if stream.error is not None and not stream.initial:
            raise stream.error
        return _read_metadata(stream.initial or [])

    async def send(self, message: Request, *, compress: bool | None = None) -> None:
        """Send one message; waits while the server does not take what was sent before.

        Messages sent without a pause leave together. `compress` decides for this message, on a
        call that names a compression.
        """
        stream = self._opened()
        while stream.congested:
            await stream.wait_for_room()
        if stream.done:
            raise stream.error or internal(
                PreconditionError("the call has ended; nothing can be sent")
            )
        self._write(stream, message, compress)
        while stream.congested:
            await stream.wait_for_room()

    async def end(self) -> None:
        """Tell the server that no message follows."""
        self._opened().end()

    async def receive(self) -> list[Reply]:
        """Return all messages that are here, waiting for the first; [] when the call ended well."""
        if self._pending:
            rest = self._pending[::-1]
            self._pending = []
            return rest
        stream = self._opened()
        while True:
            if stream.ready:
                found = self._take(stream)
                if found:
                    return found
            if stream.done:
                if stream.error is not None:
                    raise stream.error
                return []
            await stream.wait_for_messages()

    async def reply(self) -> Reply:
        """Wait for the one message and the status of a call that answers with one message."""
        found = await self.receive()
        replies = list(found)
        while found and len(replies) < 2:
            found = await self.receive()
            replies += found
        if len(replies) != 1:
            raise internal(
                InternalError(f"the server sent {len(replies) or 'no'} replies instead of one")
            )
        return replies[0]

    def __aiter__(self) -> ClientCall[Request, Reply]:
        return self

    async def __anext__(self) -> Reply:
        if not self._pending:
            found = await self.receive()
            if not found:
                raise StopAsyncIteration
            found.reverse()
            self._pending = found
        return self._pending.pop()

    def cancel(self) -> None:
        """End the call; whoever waits on it gets CallCancelledError."""
        self._opened().fail(CallCancelledError("the call was cancelled"))

    # Inside

    async def _open(self) -> None:
        if self._stream is not None:
            raise internal(PreconditionError("a call can be made once"))
        settings = self._settings
        stream = ClientStream(
            self._headers,
            settings.pool.submit,
            subtype=settings.codec.__content_subtype__,
            max_message=settings.limits.max_message,
            send_buffer=settings.limits.send_buffer,
            in_place=self._in_place,
            retrying=self._retrying,
        )
        if self._request is not None:
            self._write(stream, self._request, None)
            stream.end()
            self._request = None
        if self.metadata:
            self._fields = encode_metadata(self.metadata)  # raises before anything is sent
        loop = asyncio.get_running_loop()
        if self.deadline is not None:
            if self.deadline <= loop.time():
                raise internal(DeadlineError("the deadline was over before the call"))
            self._timer = loop.call_at(self.deadline, self._expire)
        self._stream = stream
        try:
            settings.pool.submit(stream)
            while not stream.started and not stream.done:
                await stream.wait()
            if stream.error is not None and not stream.ready:
                raise stream.error
        except BaseException:
            if self._timer is not None:
                self._timer.cancel()
            stream.close()
            raise

    def _opened(self) -> ClientStream:
        if self._stream is None:
            raise internal(PreconditionError("the call has not been made yet"))
        return self._stream

    def _expire(self) -> None:
        if self._stream is None:
            return
        if self._served is not None and self._served.over:
            # The call that has set this deadline has ended: it binds nobody any more.
            self.deadline, self._served = self._own_deadline, None
            if self.deadline is not None:
                self._timer = asyncio.get_running_loop().call_at(self.deadline, self._expire)
            return
        self._stream.fail(DeadlineError("the deadline of the call is over"))

    def _headers(self, authority: str) -> Headers:
        headers = self._settings.headers(self.method, authority)
        if self.deadline is not None:
            left = self.deadline - asyncio.get_running_loop().time()
            headers.append(("grpc-timeout", encode_timeout(left)))
        if self._compression:
            headers.append(("grpc-encoding", self._compression))
        if self._retrying is not None and self._retrying.attempts:
            headers.append(("grpc-previous-rpc-attempts", str(self._retrying.attempts)))
        headers += self._fields
        return headers

    def _write(self, stream: ClientStream, message: Request, squeeze: bool | None) -> None:
        data: bytes = self._settings.codec.encode(message, self._request_type)
        if self._compression and squeeze is not False:
            data = compress(self._compression, data)
            head = PREFIX.pack(1, len(data))
        else:
            head = prefix(len(data))
        if len(data) < _LARGE:
            stream.write(head + data)
        else:
            stream.write(head)
            stream.write(data)

    def _take(self, stream: ClientStream) -> list[Reply]:
        try:
            found = stream.take()
        except StreamkitError as error:
            stream.fail(error)
            stream.error = stream.error or internal(error)
            raise stream.error from None
        decode = self._decode
        replies: list[Reply] = []
        try:
            for data in found:
                replies.append(decode(data))  # noqa: PERF401  # those before a bad one count
        except Exception as fault:  # whatever a codec raises is about these bytes
            bad = fault if isinstance(fault, StreamkitError) else _undecodable(fault)
            stream.fail(bad)
            stream.error = internal(bad)
            if not replies:
                raise bad from fault
        return replies


def _decoder(codec: CodecBase, kind: Any) -> Callable[[bytes], Any]:
    """What decodes the replies; a codec may know a shorter way for a whole stream of one type."""
    shorter = getattr(codec, "decoder", None)
    if shorter is None:
        return partial(codec.decode, message_type=kind)
    decoder: Callable[[bytes], Any] = shorter(kind)
    return decoder


def _undecodable(fault: Exception) -> StreamkitError:
    return InternalError(f"the reply cannot be decoded: {type(fault).__name__}: {fault}")


def _read_metadata(headers: Headers) -> Metadata:
    try:
        return decode_metadata(headers)
    except ValueError:
        # One malformed value must not hide the others, still less fail the call.
        found: Metadata = MultiDict()
        for header in headers:
            try:
                found.extend(decode_metadata([header]))
            except ValueError:
                continue
        return found
