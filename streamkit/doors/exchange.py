"""A call of a service whose request and response are those of HTTP."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

from grpclib.encoding.base import CodecBase

from streamkit.errors import (
    InvalidArgumentError,
    LimitError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.transport import WebCall
from streamkit.transport.grpc.metadata import Headers, Metadata, decode_metadata
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.server.exchange import Body
from streamkit.transport.server.outcome import Outcome

__all__ = ["WebExchange", "messages_of", "metadata_of"]

_NOT_METADATA = frozenset(
    {
        *("accept", "cache-control", "connection", "cookie", "dnt", "expect", "host", "keep-alive"),
        *("last-event-id", "origin", "pragma", "priority", "referer", "te", "transfer-encoding"),
        *("upgrade", "upgrade-insecure-requests", "x-grpc-web", "x-user-agent"),
    }
)
"""What a request of HTTP carries for others than the handler."""
_NOT_PREFIXES = ("sec-", "connect-", "grpc-", "accept-", "content-")


class WebExchange(ABC):
    """The part of an Exchange, and of its Body, that every door shares. One request message."""

    carrier: str
    accepts: frozenset[str] = frozenset()

    def __init__(
        self,
        call: WebCall,
        method: str,
        requests: Sequence[bytes],
        codec: CodecBase,
        *,
        metadata: Metadata,
        timeout: float | None = None,
    ) -> None:
        self.call = call
        self.method = method
        self.metadata = metadata
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.user_agent = dict(call.headers).get("user-agent", "")
        self.codec = codec
        self.headers_sent = False
        self.body: Body = self
        self._requests = list(requests)
        self.arriving: Callable[[], Awaitable[list[bytes]]] | None = None
        """What gives the requests where these come while the call runs."""
        self._error: StreamkitError | None = None

    @property
    def peer(self) -> str:
        return self.call.peer

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        return self.call.peer_certificate

    @property
    def peer_uid(self) -> int | None:
        return self.call.peer_uid

    @property
    def lost(self) -> bool:
        return self.call.lost

    @property
    def received_all(self) -> bool:
        return True

    @property
    def unread(self) -> int:
        return sum(map(len, self._requests))

    def reset(self) -> None:
        self.call.reset()

    @abstractmethod
    def put_headers(self, metadata: Headers, compression: str) -> None:
        """Begin the response."""

    @abstractmethod
    def put_status(self, outcome: Outcome) -> None:
        """End the response."""

    # The body -----------------------------------------------------------------------------------

    @property
    def pending_size(self) -> int:
        return self.call.pending_size

    async def messages(self) -> list[bytes]:
        """All request messages that are here, then the end."""
        if self._error is not None:
            raise self._error
        if self.arriving is not None:
            return await self.arriving()
        found, self._requests = self._requests, []
        return found

    async def announced(self) -> int:
        """All of them are here before the call begins."""
        return len(self._requests[0]) if self._requests else 0

    def fail_reading(self, error: StreamkitError) -> None:
        self._error = error

    def put_message(self, prefix: bytes, body: bytes) -> bool:
        # Messages that are framed already come without: they are to stay the object that they are.
        return self.put_parts((prefix, body) if prefix else (body,))

    @abstractmethod
    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Add whole messages with gRPC's prefixes."""

    def flush_out(self) -> None:
        self.call.flush_out()

    async def drain(self) -> None:
        await self.call.drain()

    async def flushed(self) -> None:
        await self.call.flushed()

    def drop_pending(self) -> None:
        self.call.drop_pending()


def messages_of(buffer: ReceiveBuffer, body: bytes, *, many: bool, most: int) -> list[bytes]:
    """Return the messages of a whole body. UnimplementedError unless it is one, or with `many` any
    number; LimitError for more than `most` and for one that is too large."""
    buffer.feed(body)
    buffer.eof = True
    found: list[bytes] = []
    while buffer.size:
        before = buffer.size
        found += buffer.take()[0]
        if len(found) > most or buffer.size == before:
            break
    if buffer.size and len(found) <= most:
        raise InvalidArgumentError("the last message of the request is not whole")
    if many and len(found) > most:
        raise LimitError(f"a stream of requests is at most {most} messages over this protocol")
    if not many and len(found) != 1:
        raise UnimplementedError("the request of this method is one message")
    return found


def metadata_of(headers: Headers) -> Metadata:
    """Return what of a request's headers is the caller's own. ValueError for broken binary ones."""
    return decode_metadata(
        [
            (name, value)
            for name, value in headers
            if name not in _NOT_METADATA and not name.startswith(_NOT_PREFIXES)
        ]
    )
