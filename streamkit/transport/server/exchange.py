"""One call, whatever carries it.

A handler, an interceptor and `context()` see a call; what brings its bytes is an Exchange: gRPC
over HTTP/2, a door for browsers, or a function call in a test. Whoever has one gives it to
`Service.start`, which does the rest and ends it with exactly one `put_status`, unless it is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from grpclib.encoding.base import CodecBase

from streamkit.errors import StreamkitError
from streamkit.transport.grpc.metadata import Headers, Metadata
from streamkit.transport.server.outcome import Outcome

__all__ = ["Body", "Exchange"]


class Body(Protocol):
    """The messages of one call as bytes, in both directions.

    What is put does not leave by itself: it leaves with what follows in the same turn of the event
    loop, or in `drain`. Once the exchange is lost, `put_*`, `drain` and `flushed` raise an
    Exception of the carrier's own, and `messages` does after the last one that came.
    """

    @property
    def pending_size(self) -> int:
        """Bytes put and not yet sent."""
        ...

    async def messages(self) -> list[bytes]:
        """Return the whole request messages that are here, waiting for at least one; [] when the
        caller has sent its last. `Inflated` ones came compressed. StreamkitError for what a caller
        must not send."""
        ...

    async def announced(self) -> int:
        """How many bytes the next message has, once its head is here; what is here is not taken.
        0: none follows, or `messages` has an error to raise."""
        ...

    def fail_reading(self, error: StreamkitError) -> None:
        """Let whoever waits in `messages` get this error."""
        ...

    def put_message(self, prefix: bytes, body: bytes) -> bool:
        """Add a response message, with gRPC's five bytes before it; True: `drain` is due."""
        ...

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        """As `put_message`, of whole messages with their prefixes, in pieces that never change."""
        ...

    def flush_out(self) -> None:
        """Send of what was put as much as the caller takes now."""
        ...

    async def drain(self) -> None:
        """Send what was put and let the loop run; wait while the caller is behind. LimitError when
        it takes nothing for the stall timeout."""
        ...

    async def flushed(self) -> None:
        """Wait until everything put is on its way. LimitError like `drain`."""
        ...

    def drop_pending(self) -> None:
        """Forget what was put and not sent."""
        ...


class Exchange(Protocol):
    """One call as its carrier knows it: who asks for what, and how it is answered."""

    carrier: str
    """What carries it: "grpc", "inproc"; a name for metrics and logs."""
    method: str
    """/package.Service/Method, as the caller wrote it; nobody has checked that it exists."""
    metadata: Metadata
    deadline: float | None
    """When the caller gives up, on the clock of `time.monotonic`; None: never."""
    user_agent: str
    accepts: frozenset[str]
    """Encodings (as "gzip") in which the caller reads messages, and this carrier sends them."""
    codec: CodecBase
    """Between this call's messages and their bytes. Where its content subtype is not "proto",
    messages that are encoded already are decoded and encoded again."""
    body: Body
    headers_sent: bool
    """Whether the response has begun: kept by `put_headers` and `put_status`."""

    @property
    def peer(self) -> str:
        """The caller's address: "ipv4:host:port", "ipv6:[host]:port", "unix:" or "inproc"."""
        ...

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        """The caller's verified certificate, as ssl.SSLSocket.getpeercert gives it."""
        ...

    @property
    def peer_uid(self) -> int | None:
        """The user that runs the caller, as the system vouches for it; None where it cannot."""
        ...

    @property
    def lost(self) -> bool:
        """Whether nobody waits for an answer any more. Once True it stays so."""
        ...

    @property
    def received_all(self) -> bool:
        """Whether the caller has sent its last byte, so that reading does not wait."""
        ...

    @property
    def unread(self) -> int:
        """How many bytes of the request are here that `body.messages` has not given out."""
        ...

    def put_headers(self, metadata: Headers, compression: str) -> None:
        """Begin the response. `metadata` is encoded; `compression` names the encoding of messages
        with the compressed flag, "" for none."""
        ...

    def put_status(self, outcome: Outcome) -> None:
        """End the response, after what was sent before; what is pending is dropped. Raises when
        the exchange is lost."""
        ...

    def reset(self) -> None:
        """End the call without a status: the caller sees CANCELLED."""
        ...
