"""The stream that a handler works on: grpclib's interface, coalesced and within limits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import ProtocolError
from grpclib.metadata import Deadline
from grpclib.protocol import Peer
from grpclib.server import Stream
from h2.errors import ErrorCodes

from streamkit.errors import (
    DeadlineError,
    DecodeError,
    InvalidArgumentError,
    Status,
    UnimplementedError,
)
from streamkit.framing import Framed
from streamkit.transport.grpc.compression import ACCEPTED, compress
from streamkit.transport.grpc.metadata import (
    Headers,
    Metadata,
    MetadataLike,
    encode_message,
    encode_metadata,
)
from streamkit.transport.grpc.receive import PREFIX, Inflated
from streamkit.transport.http2.stream import WireStream
from streamkit.transport.server.context import Context
from streamkit.transport.server.outcome import Outcome, details_field
from streamkit.transport.server.request import Request

__all__ = ["ServerStream"]

_Recv = TypeVar("_Recv")
_Send = TypeVar("_Send")
_TURN = 0.005  # seconds that a source which is always ready may keep the loop for itself,
_LOOK = 7  # checked every eighth message
_PREFIX = PREFIX.pack
_LARGE = 128 * 1024  # bytes that are decoded aside: made for it, they may take half a second


class ServerStream(Stream[_Recv, _Send]):
    """One call. What grpclib documents for its server stream holds here, except that
    `send_message` returns once the message is buffered and not far ahead of the peer."""

    def __init__(
        self,
        wire: WireStream,
        request: Request,
        *,
        codec: CodecBase,
        aside: Executor,
        deadline: float | None,
    ) -> None:
        # Not super().__init__(): it wants the event dispatcher that interceptors replace.
        self.wire = wire
        self._stream = wire
        self._method_name = request.path
        self._cardinality: Cardinality = request.handler.cardinality
        self._recv_type = request.handler.request_type
        self._send_type = request.handler.reply_type
        self._codec = codec
        self._encode = codec.encode
        self._aside = aside
        self.deadline = None if deadline is None else Deadline(_timestamp=deadline)
        self.user_agent = request.user_agent
        self.accepts = request.accepts
        self.metadata: Metadata = request.metadata  # type: ignore[assignment]
        self.context = Context(self, request.path, request.metadata, deadline)
        # A codec may know a shorter way for a whole stream of one type.
        decoder = getattr(codec, "decoder", None)
        self._decoder: Callable[[bytes], Any] = (
            partial(codec.decode, message_type=self._recv_type)
            if decoder is None
            else decoder(self._recv_type)
        )
        self._ready: deque[bytes] = deque()
        self._turn = 0.0
        self._puts = 0
        self._counted = 0
        self._single_done = False
        wire.messages_in.inflate = request.inflate

    @property
    def peer(self) -> Peer:  # type: ignore[override]
        return self.wire.connection.get_peer()

    @property
    def owes_reply(self) -> bool:
        """Whether the method has one reply message and none was sent."""
        return not (self._cardinality.server_streaming or self._send_message_done)

    @property
    def ended(self) -> bool:
        """Whether the handler itself has sent the status, or reset the call."""
        return self._send_trailing_metadata_done or self._cancel_done

    @property
    def headers_sent(self) -> bool:
        """Whether the response has begun."""
        return self._send_initial_metadata_done

    # Receiving --------------------------------------------------------------------------------

    async def recv_message(self) -> _Recv | None:
        """Return the next request message; None when the caller has sent its last."""
        if not self._cardinality.client_streaming:
            return await self._recv_single()
        if not self._ready:
            self._ready.extend(await self.wire.messages())
            if not self._ready:
                return None
        return await self._decode(self._ready.popleft())

    async def _recv_single(self) -> _Recv | None:
        """The one message of a unary request: exactly one, and in time."""
        if self._single_done:
            return None
        wire = self.wire
        if wire.messages_in.eof:
            messages = await wire.messages()
        else:
            limit = wire.connection.limits.request_timeout
            late = DeadlineError(f"no request message within {limit:g} s")
            timer = wire.connection.loop.call_later(
                limit, wire.fail_reading, late, context=wire.connection.context
            )
            try:
                messages = await wire.messages()
            finally:
                timer.cancel()
        if not messages:
            raise UnimplementedError("the request has no message, the method takes one")
        self._single_done = True
        self.check_single(len(messages))
        return await self._decode(messages[0])

    def check_single(self, count: int = 1) -> None:
        """Raise when a caller has sent more than the one message that the method takes."""
        if count > 1 or (self._single_done and self.wire.messages_in.size):
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
        self.context.message_compressed = isinstance(data, Inflated)
        self._messages_received += 1
        connection = self.wire.connection
        connection.messages_received += 1
        connection.last_message_received = connection.last_received
        return message

    # Sending ----------------------------------------------------------------------------------

    def put_message(self, message: _Send | Framed) -> bool:
        """Encode a message into the stream's buffer; True: `drain` before the next one."""
        if not self._send_initial_metadata_done:
            self.put_headers()
        wire = self.wire
        if not wire.pending_size:
            # The loop has run: a new burst begins.
            self._puts = 0
            self._turn = time.monotonic()
        if isinstance(message, Framed):
            self._messages_sent += message.count
            data = message.data
            full = wire.put_message(b"", data) if isinstance(data, bytes) else wire.put_parts(data)
        else:
            if self._send_message_done and not self._cardinality.server_streaming:
                raise ProtocolError("Message was already sent")
            body = self._encode(message, self._send_type)
            if self.context.compress:
                body = compress(self.context.compression, body)
                full = wire.put_message(_PREFIX(1, len(body)), body)
            else:
                full = wire.put_message(_PREFIX(0, len(body)), body)
            self._messages_sent += 1
        self._send_message_done = True
        self._puts = puts = self._puts + 1
        if full:
            return True
        # A source that is always ready must let the loop run now and then.
        return puts & _LOOK == 0 and time.monotonic() - self._turn > _TURN

    async def send_message(self, message: _Send | Framed) -> None:
        """Send a message: it leaves when the handler next waits, or when enough has gathered.

        Waits while the peer is behind. LimitError when it takes nothing for the stall timeout.
        """
        if self.put_message(message):
            await self.drain()

    async def drain(self) -> None:
        """Let what was put leave; wait while the peer is behind."""
        self._count()
        await self.wire.drain()

    def _count(self) -> None:
        """Add to the connection's numbers what was sent since the last time."""
        connection = self.wire.connection
        connection.messages_sent += self._messages_sent - self._counted
        connection.last_message_sent = connection.last_data_sent
        self._counted = self._messages_sent

    def put_headers(self, metadata: MetadataLike | None = None) -> None:
        """Put the response's headers."""
        headers: Headers = [
            (":status", "200"),
            ("content-type", self._content_type),
            ("grpc-accept-encoding", ACCEPTED),
        ]
        if self.context.compression:
            headers.append(("grpc-encoding", self.context.compression))
        if self.context._initial is not None:
            headers += encode_metadata(self.context._initial)
        if metadata is not None:
            headers += encode_metadata(metadata)
        self.wire.put_headers(headers)
        self._send_initial_metadata_done = True

    async def send_initial_metadata(self, *, metadata: Any = None) -> None:
        """Send the headers, with metadata, ahead of the first message."""
        if self._send_initial_metadata_done:
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
        """End the call with this status; `status_details` is an encoded google.rpc.Status."""
        if self._send_trailing_metadata_done:
            raise ProtocolError("Trailing metadata was already sent")
        if (
            not self._cardinality.server_streaming
            and not self._send_message_done
            and status is Status.OK
        ):
            raise ProtocolError("Unary response with OK status requires a single message")
        extra = encode_metadata(metadata) if metadata is not None else []
        if isinstance(status_details, bytes):
            extra.append(details_field(status_details))
        await self.finish(Outcome(status, status_message or "", extra))

    async def finish(self, outcome: Outcome) -> None:
        """Send the status, after everything put before it. Once; later calls do nothing."""
        if self.ended:
            return
        self._count()
        wire = self.wire
        wire.flush_out()
        if outcome.hasty:
            wire.drop_pending()
        elif wire.pending_size:
            await wire.flushed()
        self._send_trailing_metadata_done = True
        wire.put_headers(self._trailers(outcome), end_stream=True)

    def _trailers(self, outcome: Outcome) -> Headers:
        ctx = self.context
        headers: Headers = []
        if not self._send_initial_metadata_done:
            if ctx._initial is not None:
                self.put_headers()
            else:
                headers += [
                    (":status", "200"),
                    ("content-type", self._content_type),
                    ("grpc-accept-encoding", ACCEPTED),
                ]
        headers.append(("grpc-status", str(outcome.status.value)))
        if outcome.message:
            headers.append(("grpc-message", encode_message(outcome.message)))
        own = ctx._trailing
        headers += [pair for pair in outcome.trailers if own is None or pair[0] not in own]
        if own is not None:
            headers += encode_metadata(own)
        return headers

    async def cancel(self) -> None:
        """Reset the call: the caller sees CANCELLED."""
        if self._cancel_done:
            raise ProtocolError("Stream was already cancelled")
        self._cancel_done = True
        self.wire.reset_nowait(ErrorCodes.CANCEL)
