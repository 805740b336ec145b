"""How a call can end badly, and what follows: the one table of what is final and what goes on.

A status that the server sent is its answer. All else broke off on the way: a proxy's time limit, a
restart, a lost network. Who knows where the stream stood goes on from there; a single call and a
query before its first batch are made again; a query that has begun to arrive ends, as its rows
cannot be asked for from the middle. Asked by `attempts` and by nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from streamkit.errors import JobFailedError, Status, StreamkitError

__all__ = ["ENDINGS", "STATUSES", "Follows", "follows"]


class Follows(Enum):
    """What comes after an ending."""

    FINAL = "the error is the caller's"
    AGAIN = "another attempt, as often as it takes"
    DOUBTFUL = "another attempt, a few times without progress: it may be our own fault"


FINAL, AGAIN, DOUBTFUL = Follows.FINAL, Follows.AGAIN, Follows.DOUBTFUL

STATUSES: Mapping[Status, tuple[Follows, str]] = {
    Status.UNAVAILABLE: (AGAIN, "going away, draining, or a store that is away: it comes back"),
    Status.ABORTED: (AGAIN, "lost against somebody else; the next attempt may win"),
    Status.RESOURCE_EXHAUSTED: (DOUBTFUL, "a limit may pass; one met five times does not"),
}
"""What the server itself said. Every other status is final: asked again, it would say it again.

Its wishes come first: `grpc-retry-pushback-ms` says when or never, `streamkit-reconnect` asks for
another attempt whatever the status (a drain, a token that has run out).
"""

ENDINGS: Mapping[str, tuple[Follows, str]] = {
    "lost": (AGAIN, "the connection went, or GOAWAY left the stream behind"),
    "unfinished": (AGAIN, "END_STREAM without trailers: a proxy lost its own server"),
    "reset NO_ERROR": (AGAIN, "a proxy that ends a stream it has nothing against"),
    "reset INTERNAL_ERROR": (AGAIN, "the time limits of Envoy and nginx, and their lost servers"),
    "reset REFUSED_STREAM": (AGAIN, "not looked at; the transport has repeated it already"),
    "reset CANCEL": (AGAIN, "the idle limits of HAProxy and of load balancers"),
    "reset STREAM_CLOSED": (AGAIN, "the two sides disagreed about the end"),
    "reset CONNECT_ERROR": (AGAIN, "a tunnel lost its far end"),
    "reset SETTINGS_TIMEOUT": (AGAIN, "a connection in trouble; the next one is another"),
    "reset ENHANCE_YOUR_CALM": (DOUBTFUL, "too much of something; later it may be less"),
    "reset PROTOCOL_ERROR": (DOUBTFUL, "some proxies say so of a lost server; else it is ours"),
    "reset FLOW_CONTROL_ERROR": (DOUBTFUL, "as PROTOCOL_ERROR"),
    "reset FRAME_SIZE_ERROR": (DOUBTFUL, "as PROTOCOL_ERROR"),
    "reset COMPRESSION_ERROR": (DOUBTFUL, "as PROTOCOL_ERROR"),
    "reset INADEQUATE_SECURITY": (DOUBTFUL, "about this connection; the next may be another path"),
    "reset HTTP_1_1_REQUIRED": (DOUBTFUL, "as INADEQUATE_SECURITY"),
    "reset": (DOUBTFUL, "a code that nobody knows"),
    "http 408": (AGAIN, "a proxy's time limit"),
    "http 429": (AGAIN, "gRPC's table: UNAVAILABLE"),
    "http 502": (AGAIN, "gRPC's table: UNAVAILABLE; a proxy whose server is away"),
    "http 503": (AGAIN, "as 502"),
    "http 504": (AGAIN, "as 502"),
    "http 5": (DOUBTFUL, "a proxy's own trouble"),
    "http": (FINAL, "an answer that is not gRPC's: wrong address, no such path, not allowed"),
    "not grpc": (DOUBTFUL, "a page in place of the service: passes if it was a proxy's"),
}
"""What came in place of a status, as `StreamkitError.ending` names it; else the longest beginning.

A stream that has never been open takes DOUBTFUL for FINAL, so that a wrong address fails at once.
"""


def follows(error: BaseException) -> Follows:
    """What follows a failure. Of errors that no other side caused, only a failure to connect and
    a limit of our own may pass; a time limit is the caller's, and cancelling never comes here."""
    if not isinstance(error, StreamkitError):
        return AGAIN if isinstance(error, ConnectionError) else FINAL
    if isinstance(error, JobFailedError):
        return FINAL
    ending = error.ending
    if not ending or ending == "status":
        return STATUSES.get(error.status, (FINAL, ""))[0]
    while ending not in ENDINGS:
        ending = ending[:-1]
        if not ending:
            return FINAL
    return ENDINGS[ending][0]
