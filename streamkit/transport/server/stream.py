"""The stream that a handler works on: grpclib's interface, coalesced and within limits."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import ProtocolError
from grpclib.metadata import Deadline
from grpclib.server import Stream

from streamkit.config import TransportLimits
from streamkit.errors import (
    DeadlineError,
    DecodeError,
    InvalidArgumentError,
    LimitError,
    Status,
    UnimplementedError,
)
from streamkit.framing import PREFIX, PREFIX_SIZE, Framed, prefix
from streamkit.room import Room
from streamkit.transport.grpc.compression import compress
from streamkit.transport.grpc.metadata import MetadataLike, encode_metadata
from streamkit.transport.grpc.receive import Inflated
from streamkit.transport.server.checking import Check, refused
from streamkit.transport.server.context import Context
from streamkit.transport.server.exchange import Exchange
from streamkit.transport.server.outcome import Outcome, details_of

__all__ = ["ServerStream", "together"]

T = TypeVar("T")
_Recv = TypeVar("_Recv")
_Send = TypeVar("_Send")
_TURN = 0.005  # seconds that a source which is always ready may keep the loop for itself,
_LOOK = 7  # checked every eighth message
_NOTHING: deque[bytes] = deque(maxlen=0)  # of the many calls that read one request: 760 bytes each
_LARGE = 128 * 1024
"""Bytes that are decoded aside: made for it, they may take half a second."""


class ServerStream(Stream[_Recv, _Send]):
    """One call. What grpclib documents for its server stream holds here, except that
    `send_message` returns once the message is buffered and not far ahead of the peer."""

    def __init__(
        self,
        exchange: Exchange,
        handler: Handler,
        context: Context,
        *,
        codec: CodecBase,
        aside: Executor,
        limits: TransportLimits,
        room: Room,
        check: Check | None = None,
    ) -> None:
        # Not super().__init__(): it wants an HTTP/2 stream, and the event dispatcher that
        # interceptors replace.
        self.exchange = exchange
        self.context = context
        self._body = exchange.body
        self._method_name = exchange.method
        self._cardinality: Cardinality = handler.cardinality
        self._recv_type = handler.request_type
        self._send_type = handler.reply_type
        self._codec = exchange.codec
        self._encode = exchange.codec.encode
        self._framing = codec  # what messages that are encoded already are encoded with
        self._frames_fit = codec.__content_subtype__ == exchange.codec.__content_subtype__
        self._aside = aside
        self._request_timeout = limits.request_timeout
        self._patience = limits.stall_timeout
        self._room = room
        self._held = 0
        self._check = check
        deadline = exchange.deadline
        self.deadline = None if deadline is None else Deadline(_timestamp=deadline)
        self.user_agent = exchange.user_agent
        self.metadata = exchange.metadata  # type: ignore[assignment]  # grpclib's is a new type
        # A codec may know a shorter way for a whole stream of one type.
        decoder = getattr(exchange.codec, "decoder", None)
        self._decoder: Callable[[bytes], Any] = (
            partial(exchange.codec.decode, message_type=self._recv_type)
            if decoder is None
            else decoder(self._recv_type)
        )
        self._ready = _NOTHING
        self._turn = 0.0
        self._puts = 0
        self._single_done = False

    @property
    def peer(self) -> _Peer:  # type: ignore[override]  # what it offers, on any carrier
        return _Peer(self.exchange)

    @property
    def owes_reply(self) -> bool:
        """Whether the method has one reply message and none was sent."""
        return not (self._cardinality.server_streaming or self._send_message_done)

    @property
    def ended(self) -> bool:
        """Whether the handler itself has sent the status, or reset the call."""
        return self._send_trailing_metadata_done or self._cancel_done

    # Receiving --------------------------------------------------------------------------------

    async def recv_message(self) -> _Recv | None:
        """Return the next request message; None when the caller has sent its last."""
        if not self._cardinality.client_streaming:
            return await self._recv_single()
        if not self._ready:
            found = await self._body.messages()
            if not found:
                return None
            if self._ready is _NOTHING:
                self._ready = deque()
            self._ready.extend(found)
        return await self._decode(self._ready.popleft())

    async def recv_messages(self) -> list[_Recv]:
        """Return the request messages that are here, waiting for at least one; [] when the caller
        has sent its last. What is wrong with a message is raised after those before it."""
        first = await self.recv_message()
        if first is None:
            return []
        found, size = [first], 0
        ready, context = self._ready, self.context
        if context.inspectors:  # they may want a pause between two
            return found
        decode, check = self._decoder, self._check
        while ready and len(ready[0]) < _LARGE:
            data = ready[0]
            try:
                message = decode(data)
                if check is not None:
                    check(message)
            except Exception:  # it is the first of the next time, which raises what this is about
                break
            ready.popleft()
            found.append(message)
            size += len(data)
            context.message_compressed = data.__class__ is Inflated
        self._messages_received += len(found) - 1
        context.messages_received += len(found) - 1
        context.bytes_received += size
        return found

    async def _recv_single(self) -> _Recv | None:
        """The one message of a unary request: exactly one, and in time."""
        if self._single_done:
            return None
        exchange, body = self.exchange, self._body
        if exchange.received_all:
            if exchange.unread > _LARGE:
                await self._take_room(exchange.unread)
            messages = await body.messages()
        else:
            # What is large is let in beyond its stream's window only when there is room for it.
            size = await self._in_time(body.announced())
            if size > _LARGE:
                await self._take_room(size)
            messages = await self._in_time(body.messages())
        if not messages:
            raise UnimplementedError("the request has no message, the method takes one")
        self._single_done = True
        self.check_single(len(messages))
        return await self._decode(messages[0])

    async def _in_time(self, reading: Coroutine[Any, Any, T]) -> T:
        limit = self._request_timeout
        late = DeadlineError(f"no request message within {limit:g} s")
        # In a context of its own: a timer must not keep what the call's holds.
        timer = asyncio.get_running_loop().call_later(
            limit, self._body.fail_reading, late, context=contextvars.Context()
        )
        try:
            return await reading
        finally:
            timer.cancel()

    async def _take_room(self, size: int) -> None:
        """Held until the call is over, as its message is."""
        try:
            await self._room.take(size, self._patience)
        except TimeoutError:
            raise LimitError(
                "too much is being sent to this server at once",
                hint="send it again in a moment",
            ) from None
        self._held = size

    def leave_room(self) -> None:
        """The call is over."""
        if self._held:
            self._room.leave(self._held)
            self._held = 0

    def check_single(self, count: int = 1) -> None:
        """Raise when a caller has sent more than the one message that the method takes."""
        if count > 1 or (self._single_done and self.exchange.unread):
            raise UnimplementedError("the request has several messages, the method takes one")

    async def _decode(self, data: bytes) -> _Recv:
        try:
            if len(data) < _LARGE:
                message: _Recv = self._decoder(data)
            else:
                loop = asyncio.get_running_loop()
                message = await loop.run_in_executor(self._aside, self._decoder, data)
        except DecodeError as error:
            raise InvalidArgumentError(f"the request cannot be decoded: {error}") from error
        except Exception as error:  # whatever a codec raises is about these bytes
            raise InvalidArgumentError("the request cannot be decoded") from error
        context = self.context
        context.message_compressed = isinstance(data, Inflated)
        self._messages_received += 1
        context.messages_received += 1
        context.bytes_received += len(data)
        if context.inspectors:
            delay = sum([inspect(message) for inspect in tuple(context.inspectors)])
            if delay:
                await asyncio.sleep(delay)
        if self._check is not None:
            try:
                self._check(message)
            except ValueError as error:
                raise refused(error, message) from None
        return message

    # Sending ----------------------------------------------------------------------------------

    def put_message(self, message: _Send | Framed) -> bool:
        """Encode a message into the stream's buffer; True: `drain` before the next one."""
        if not self._send_initial_metadata_done:
            self.put_headers()
        out = self._body
        if not out.pending_size:
            # The loop has run: a new burst begins.
            self._puts = 0
            self._turn = time.monotonic()
        if isinstance(message, Framed):
            self._messages_sent += message.count
            data = message.data
            self.context.bytes_sent += len(data) if isinstance(data, bytes) else sum(map(len, data))
            if not self._frames_fit:
                full = self._put_apart(message)
            else:
                full = (
                    out.put_message(b"", data) if isinstance(data, bytes) else out.put_parts(data)
                )
        else:
            if self._send_message_done and not self._cardinality.server_streaming:
                raise ProtocolError("Message was already sent")
            body = self._encode(message, self._send_type)
            self.context.bytes_sent += len(body)
            if self.context.compress:
                body = compress(self.context.compression, body)
                full = out.put_message(PREFIX.pack(1, len(body)), body)
            else:
                full = out.put_message(prefix(len(body)), body)
            self._messages_sent += 1
        self.context.messages_sent = self._messages_sent
        self._send_message_done = True
        self._puts = puts = self._puts + 1
        if full:
            return True
        # A source that is always ready must let the loop run now and then.
        return puts & _LOOK == 0 and time.monotonic() - self._turn > _TURN

    def _put_apart(self, framed: Framed) -> bool:
        """Put messages that are encoded already on a carrier with another encoding."""
        full = False
        for body in _bodies(framed):
            text = self._encode(self._framing.decode(body, self._send_type), self._send_type)
            full = self._body.put_message(prefix(len(text)), text)
        return full

    async def send_message(self, message: _Send | Framed) -> None:
        """Send a message: it leaves when the handler next waits, or when enough has gathered.

        Waits while the peer is behind. LimitError when it takes nothing for the stall timeout.
        """
        if self.put_message(message):
            await self.drain()

    async def drain(self) -> None:
        """Let what was put leave; wait while the peer is behind."""
        try:
            await self._body.drain()
        except LimitError:
            self.context.reason = "slow"
            raise

    def put_headers(self, metadata: MetadataLike | None = None) -> None:
        """Put the response's headers, unless the context has sent them."""
        if not self.exchange.headers_sent:
            self.context.begin(*(encode_metadata(metadata) if metadata is not None else ()))
        self._send_initial_metadata_done = True

    async def send_initial_metadata(self, *, metadata: Any = None) -> None:
        """Send the headers, with metadata, ahead of the first message."""
        if self.exchange.headers_sent:
            raise ProtocolError("Initial metadata was already sent")
        self.put_headers(metadata)

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,
        metadata: Any = None,
    ) -> None:
        """End the call with this status; `status_details` are messages, or an encoded
        google.rpc.Status."""
        if self._send_trailing_metadata_done:
            raise ProtocolError("Trailing metadata was already sent")
        if (
            not self._cardinality.server_streaming
            and not self._send_message_done
            and status is Status.OK
        ):
            raise ProtocolError("Unary response with OK status requires a single message")
        extra = encode_metadata(metadata) if metadata is not None else []
        if status_details:
            extra.append(details_of(status, status_message or "", status_details))
        await self.finish(Outcome(status, status_message or "", extra))

    async def finish(self, outcome: Outcome) -> None:
        """Send the status, after everything put before it. Once; later calls do nothing."""
        if self.ended:
            return
        ctx, body = self.context, self._body
        ctx.messages_sent = self._messages_sent
        body.flush_out()
        if outcome.hasty:
            body.drop_pending()
        elif body.pending_size:
            await body.flushed()
        if ctx._initial is not None and not self.exchange.headers_sent:
            ctx.begin()
        if ctx._trailing is not None:
            outcome = outcome.with_trailers(ctx._trailing)
        self._send_trailing_metadata_done = True
        self.exchange.put_status(outcome)
        ctx.outcome = outcome

    async def finish_alone(self, outcome: Outcome) -> None:
        """As `finish`, for a caller that takes nothing: what is pending is dropped, also when an
        earlier `finish` has waited for it in vain."""
        self._body.drop_pending()
        self._send_trailing_metadata_done = False
        await self.finish(outcome)

    async def cancel(self) -> None:
        """Reset the call: the caller sees CANCELLED."""
        if self._cancel_done:
            raise ProtocolError("Stream was already cancelled")
        self._cancel_done = True
        self.exchange.reset()


async def together(requests: AsyncIterable[_Recv]) -> AsyncGenerator[list[_Recv]]:
    """What a handler is given as its stream of requests, in lists of those that are here at once:
    a stream of small messages costs less so."""
    if isinstance(requests, ServerStream):
        while found := await requests.recv_messages():
            yield found
    else:
        async for request in requests:
            yield [request]


def _bodies(framed: Framed) -> Iterator[bytes]:
    """The messages in bytes that are framed already."""
    data = framed.data if isinstance(framed.data, bytes) else b"".join(framed.data)
    at = 0
    while at < len(data):
        _, size = PREFIX.unpack_from(data, at)
        at += PREFIX_SIZE
        yield data[at : at + size]
        at += size


class _Peer:
    """What grpclib's handlers ask about the caller."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def addr(self) -> str | tuple[str, int] | None:
        """Host and port; the path for a unix socket."""
        kind, _, rest = self._exchange.peer.partition(":")
        if kind in ("ipv4", "ipv6"):
            host, _, port = rest.rpartition(":")
            return host.strip("[]"), int(port)
        return rest or None

    def cert(self) -> dict[str, object] | None:
        """The verified certificate."""
        return self._exchange.peer_certificate
