"""What a handler can know and say about the call that it serves."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from multidict import MultiDict

from streamkit.errors import InvalidArgumentError, PreconditionError, StreamkitError, internal
from streamkit.rights import Action, Identity, Rights
from streamkit.transport.grpc.metadata import Metadata, MetadataLike, encode_metadata
from streamkit.transport.server.exchange import Exchange
from streamkit.transport.server.outcome import Outcome

__all__ = ["Context", "Next", "ServerInterceptor", "context", "current"]

_CURRENT: ContextVar[Context] = ContextVar("streamkit_call")


class Context:
    """One call, seen from the server, whatever carries it."""

    __slots__ = (
        "_cancelled",
        "_exchange",
        "_initial",
        "_observers",
        "_trailing",
        "bytes_received",
        "bytes_sent",
        "compress",
        "compression",
        "deadline",
        "end",
        "finite",
        "inspectors",
        "message_compressed",
        "messages_received",
        "messages_sent",
        "metadata",
        "method",
        "outcome",
        "place",
        "reason",
        "rights",
        "state",
        "streams_replies",
        "streams_requests",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        streams_requests: bool,
        streams_replies: bool,
        end: Callable[[StreamkitError], None],
    ) -> None:
        self._exchange = exchange
        self._cancelled = False
        self._initial: Metadata | None = None
        self._trailing: Metadata | None = None
        self._observers: list[Callable[[Context], None]] = []
        self.end = end
        """End the call from outside with this error: its handler is cancelled. Nothing happens to
        a call that is over."""
        self.method = exchange.method
        """The call's path: /package.Service/Method."""
        self.metadata = exchange.metadata
        """What the caller sent; values of keys that end in -bin are bytes."""
        self.deadline = exchange.deadline
        """When the caller gives up, on the clock of `time.monotonic`; None: never."""
        self.streams_requests = streams_requests
        """Whether the method takes a stream of requests."""
        self.streams_replies = streams_replies
        """Whether the method answers with a stream."""
        self.rights: Rights | None = None
        """What the caller may do; None where nobody decides about that: everything."""
        self.state: Any = None
        """What the server's lifespan gave."""
        self.inspectors: list[Callable[[Any], float]] = []
        """Each is given every request message before the handler is, and may raise: the message
        then was not sent, for the handler. What it returns are seconds to wait before going on."""
        self.place: tuple[str, str, int] | None = None
        """Of a journal stream: its name, the epoch, and up to where it was handed out."""
        self.reason = ""
        """Why the call was ended from outside, in a word, for logs; set by whoever ends it."""
        self.finite = False
        """Set it in a streaming handler that comes to an end by itself: when the server drains,
        the call may finish within the grace period instead of being told to come back."""
        self.message_compressed = False
        """Whether the request message that was read last came compressed."""
        self.messages_received = 0
        """How many request messages the handler has read."""
        self.messages_sent = 0
        """How many messages were handed over to be sent."""
        self.bytes_received = 0
        self.bytes_sent = 0
        """Of messages, as they came and went: compressed ones count as what they were."""
        self.compression = ""
        """The grpc-encoding announced with the headers; set by `use_compression`."""
        self.compress = False
        """Whether messages from here on are compressed; can change between messages."""
        self.outcome: Outcome | None = None
        """How the call ended; None while it runs."""

    @property
    def carrier(self) -> str:
        """What carries the call: "grpc", or the name of another door."""
        return self._exchange.carrier

    @property
    def peer(self) -> str:
        """The caller's address: "ipv4:host:port", "ipv6:[host]:port", "unix:" or "inproc"."""
        return self._exchange.peer

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        """The caller's verified certificate, as ssl.SSLSocket.getpeercert gives it."""
        return self._exchange.peer_certificate

    @property
    def pending(self) -> int:
        """Bytes of the response that wait for the caller to take them."""
        return self._exchange.body.pending_size

    @property
    def peer_uid(self) -> int | None:
        """The user that runs the caller, at the other end of a unix socket; None elsewhere."""
        return self._exchange.peer_uid

    @property
    def identity(self) -> Identity | None:
        """Who calls; None on a server without rules of access."""
        return None if self.rights is None else self.rights.identity

    def allows(self, action: Action, asked: str = "") -> bool:
        """Whether the caller may do this to all that `asked`, a name or a pattern, stands for."""
        return self.rights is None or self.rights.allows(action, asked)

    def require(self, action: Action, asked: str = "") -> None:
        """Raise AuthError unless the caller may do this."""
        if self.rights is not None:
            self.rights.require(action, asked)

    def check(self, message: object) -> None:
        """Raise AuthError unless the caller may do everything that a request message asks for.

        The server has done so for every message already, except for those of `Write`, whose
        handler tells a refusal in its reply.
        """
        if self.rights is not None:
            self.rights.check(message)

    def narrowed(self, action: Action) -> tuple[str, ...] | None:
        """The patterns that "everything" comes down to for the caller; None: everything."""
        return None if self.rights is None else self.rights.narrowed(action)

    @property
    def user_agent(self) -> str:
        """What the caller says that it is; "" when it says nothing."""
        return self._exchange.user_agent

    @property
    def cancelled(self) -> bool:
        """Whether the call is over for the caller: cancelled, late, or its connection lost."""
        return self._cancelled or self._exchange.lost

    def time_left(self) -> float | None:
        """Seconds until the deadline, not below 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def when_done(self, callback: Callable[[Context], None]) -> None:
        """Call `callback` once when the call is over and `outcome` is known, however it ended;
        at once when it is over already."""
        if self.outcome is None:
            self._observers.append(callback)
        else:
            callback(self)

    def set_initial_metadata(self, metadata: MetadataLike) -> None:
        """Add metadata to the response's headers; before the first message."""
        if self._exchange.headers_sent:
            raise internal(PreconditionError("the headers were sent already"))
        self._initial = _merged(self._initial, metadata)

    async def send_initial_metadata(self) -> None:
        """Send the headers now instead of with the first message."""
        if not self._exchange.headers_sent:
            self.begin()

    def begin(self, *more: tuple[str, str]) -> None:
        """Put the response's headers; `more` are encoded already."""
        initial = [] if self._initial is None else encode_metadata(self._initial)
        self._exchange.put_headers([*initial, *more], self.compression)

    def put_aside(self, message: bytes) -> None:
        """Send a whole message, prefix included, from beside the handler and between its own.

        Nothing happens to a call that is over, to one whose messages have another form, and while
        something else is waiting to be sent.
        """
        exchange = self._exchange
        if self.outcome is not None or self.cancelled or exchange.body.pending_size:
            return
        if exchange.codec.__content_subtype__ == "proto":
            if not exchange.headers_sent:
                self.begin()
            exchange.body.put_message(b"", message)
            exchange.body.flush_out()

    def set_trailing_metadata(self, metadata: MetadataLike) -> None:
        """Add metadata to what is sent with the call's status."""
        self._trailing = _merged(self._trailing, metadata)

    def use_compression(self, encoding: str = "gzip") -> bool:
        """Compress the response's messages from now on; False when the caller cannot read it.

        Before the first message. `compress` switches it off and on for single messages.
        """
        if self._exchange.headers_sent:
            raise internal(PreconditionError("the headers were sent already"))
        if encoding not in self._exchange.accepts:
            return False
        self.compression = encoding
        self.compress = True
        return True


def _merged(old: Metadata | None, new: MetadataLike) -> Metadata:
    if isinstance(new, str | bytes):
        raise internal(InvalidArgumentError("metadata is a mapping or pairs"))
    merged: Metadata = MultiDict() if old is None else old
    merged.extend(new)
    encode_metadata(merged)  # a bad key is the setter's fault and shows up there
    return merged


Next = Callable[[Context], Awaitable[None]]
"""The rest of the onion; ends when the call's handler has ended."""

ServerInterceptor = Callable[[Context, Next], Awaitable[None]]
"""`async def interceptor(ctx, call_next)`: runs around every call of every kind.

It may refuse by raising (an AuthError, say), add metadata, set context variables that the handler
sees, time the call, translate errors. It must await `call_next(ctx)` at most once.
"""


def context() -> Context:
    """Return the context of the call that the current task serves.

    PreconditionError outside of a handler.
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise internal(PreconditionError("no call is being served here")) from None


def current() -> Context | None:
    """Return the context of the call that the current task serves, or None."""
    return _CURRENT.get(None)


def enter(ctx: Context) -> None:
    """Make `ctx` the context of the current task; the task's own copy ends with it."""
    _CURRENT.set(ctx)
