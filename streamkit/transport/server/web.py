"""What is no gRPC: requests of HTTP, as whoever answers them sees them, whatever brings them.

A door is given each request as a WebCall, of HTTP/1.1 (a Guest of its own) or of HTTP/2 (here).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from h2.errors import ErrorCodes

from streamkit.errors import DeadlineError, LimitError
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.http2.stream import WireStream
from streamkit.transport.server.outcome import Outcome

__all__ = ["Door", "Guest", "Http2Call", "Visit", "WebCall"]

Inflate = Callable[[bytes], bytes]
Arriving = Callable[[], Awaitable[list[bytes]]]


class WebCall(Protocol):
    """One request of HTTP and the response to it.

    What is written leaves with what follows in the same turn of the event loop, or in `drain`. Once
    the call is lost, writing does nothing, and `drain` and `flushed` return at once.
    """

    version: str
    """"1.1" or "2"."""
    method: str
    target: str
    """Path and query, as they came."""
    headers: Headers
    """Names in lower case."""
    secure: bool
    """Whether TLS protects the connection."""

    @property
    def peer(self) -> str:
        """As `Exchange.peer`."""
        ...

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        """As `Exchange.peer_certificate`."""
        ...

    @property
    def peer_uid(self) -> int | None:
        """As `Exchange.peer_uid`."""
        ...

    @property
    def lost(self) -> bool:
        """Whether nobody waits for the response any more. Once True it stays so."""
        ...

    @property
    def pending_size(self) -> int:
        """Bytes written and not yet sent."""
        ...

    async def read(self, most: int) -> bytes:
        """Return the whole body. LimitError when it is larger than `most` bytes, DeadlineError when
        it does not come in time, ConnectError when the caller goes."""
        ...

    def arriving(self, inflate: Inflate | None) -> Arriving | None:
        """Return what gives the messages of a body of frames as they come, [] at the end: as
        `Exchange.body.messages`. None: the body can only be read whole."""
        ...

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Begin the response; `length` is that of its body, None when it is not known yet."""
        ...

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Add to the body; True: `drain` is due."""
        ...

    def flush_out(self) -> None:
        """Send of what was written as much as the caller takes now."""
        ...

    async def drain(self) -> None:
        """Send what was written and let the loop run; wait while the caller is behind. LimitError
        when it takes nothing for the stall timeout."""
        ...

    async def flushed(self) -> None:
        """Wait until everything written is on its way. LimitError like `drain`."""
        ...

    def drop_pending(self) -> None:
        """Forget what was written to the body and not sent."""
        ...

    def end(self) -> None:
        """End the response after everything written."""
        ...

    def reset(self) -> None:
        """Break the response off, so that the caller notices."""
        ...


class Visit(Protocol):
    """A request while it is answered: how its carrier ends it."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Whoever answers it; None when that is over."""
        ...

    def end(self, verdict: Outcome | None) -> None:
        """End with this status; None: the caller is gone."""
        ...

    def drain(self, *, everything: bool) -> None:
        """The server goes away: as `Call.drain`."""
        ...

    def settle(self) -> None:
        """Give the place free, if the task is done: else that is for the next turn of the loop."""
        ...


class Guest(asyncio.Protocol):
    """A connection that does not speak HTTP/2, as the server that counts and ends it sees it."""

    tasks: list[asyncio.Task[None]]
    transport: asyncio.Transport | None = None

    def leave(self) -> None:
        """Take no more requests; close when the last response is sent."""
        raise NotImplementedError

    def drain(self, *, everything: bool) -> None:
        """The server goes away: end what has no end of its own, with `everything` all."""
        raise NotImplementedError

    def close(self) -> None:
        """Close when what was written is sent."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once."""
        raise NotImplementedError


class Door(Protocol):
    """Whoever answers requests that are no gRPC."""

    def accept(self, call: WebCall, done: Callable[[], None]) -> Visit:
        """Answer a request in a task of its own; `done` once that is over."""
        ...

    def guest(
        self,
        on_made: Callable[[Guest], bool],
        on_lost: Callable[[Guest], None],
    ) -> Guest:
        """Return the protocol of a new connection that speaks HTTP/1.1. It tells `on_made` when it
        has its transport, and goes again at once where that says False; and then `on_lost`."""
        ...


class Http2Call:
    """A WebCall on an HTTP/2 stream."""

    version = "2"

    def __init__(self, stream: WireStream, headers: Headers) -> None:
        fields = dict(headers[:8])
        self.method = fields.get(":method", "")
        self.target = fields.get(":path", "")
        self.headers = [pair for pair in headers if pair[0][0] != ":"]
        if ":authority" in fields:
            self.headers.append(("host", fields[":authority"]))
        self._stream = stream
        connection = stream.connection
        self.secure = connection.transport.get_extra_info("ssl_object") is not None

    @property
    def peer(self) -> str:
        return self._stream.connection.peer_name

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        return self._stream.connection.peer_certificate

    @property
    def peer_uid(self) -> int | None:
        return self._stream.connection.peer_uid

    @property
    def lost(self) -> bool:
        return self._stream.lost is not None

    @property
    def pending_size(self) -> int:
        return self._stream.pending_size

    async def read(self, most: int) -> bytes:
        """As WebCall."""
        seconds = self._stream.connection.limits.request_timeout
        try:
            async with asyncio.timeout(seconds):
                data = await self._stream.recv_data(most + 1)
        except TimeoutError:
            raise DeadlineError(f"the request did not come whole within {seconds:g} s") from None
        if len(data) > most:
            raise LimitError(f"a body of more than {most} bytes is over the limit")
        return data

    def arriving(self, inflate: Inflate | None) -> Arriving | None:
        """As WebCall."""
        self._stream.messages_in.inflate = inflate
        return self._stream.messages

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """As WebCall."""
        if self.lost:
            return
        fields = [(":status", str(status)), *headers]
        if length is not None:
            fields.append(("content-length", str(length)))
        self._stream.put_headers(fields)

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """As WebCall."""
        return not self.lost and self._stream.put_parts(parts)

    def flush_out(self) -> None:
        """As WebCall."""
        self._stream.flush_out()

    async def drain(self) -> None:
        """As WebCall."""
        if not self.lost:
            await self._stream.drain()

    async def flushed(self) -> None:
        """As WebCall."""
        if not self.lost:
            await self._stream.flushed()

    def drop_pending(self) -> None:
        """As WebCall."""
        self._stream.drop_pending()

    def end(self) -> None:
        """As WebCall."""
        if not self.lost:
            self._stream.put_end()

    def reset(self) -> None:
        """As WebCall."""
        self._stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)


def is_grpc(headers: Any) -> bool:
    """Whether a request over HTTP/2 is for gRPC: everything is that does not say otherwise."""
    for name, value in headers:
        if name == "content-type":
            base = value.partition(";")[0].strip().lower()
            return bool(base == "application/grpc" or base.startswith("application/grpc+"))
    return False
