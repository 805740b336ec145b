"""How a call ended, as one status: the only place where errors become gRPC statuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from grpclib.exceptions import GRPCError

from streamkit.errors import Status, StreamGapError, StreamkitError
from streamkit.terms import HINT_HEADER, NEWEST_HEADER, OLDEST_HEADER, RECONNECT_HEADER
from streamkit.transport.grpc.details import details_header, pack_details
from streamkit.transport.grpc.metadata import Headers, Metadata, encode_message, encode_metadata

__all__ = ["BROKEN", "DRAINED", "GONE", "LATE", "OK", "Outcome", "details_of", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A status, what is said about it, and trailers that belong to it."""

    status: Status
    message: str = ""
    trailers: Headers = field(default_factory=list)
    unexpected: bool = False
    """A fault of the handler: worth a line in the log."""
    hasty: bool = False
    """The status goes out at once; messages that flow control holds back are dropped."""

    def with_trailers(self, metadata: Metadata) -> Outcome:
        """Return the same with the handler's trailing metadata, which outranks its own."""
        trailers = [pair for pair in self.trailers if pair[0] not in metadata]
        return replace(self, trailers=trailers + encode_metadata(metadata))


OK = Outcome(Status.OK)
BROKEN = Outcome(Status.INTERNAL, "internal error", unexpected=True)
"""Of a handler that is at fault: what it was stays here."""
LATE = Outcome(Status.DEADLINE_EXCEEDED, "the deadline is over", hasty=True)
GONE = Outcome(Status.CANCELLED, "the caller is gone")
"""Of a call that nobody waits for: no status is sent."""
DRAINED = Outcome(
    Status.UNAVAILABLE, "the server is going away", [(RECONNECT_HEADER, "1")], hasty=True
)


def outcome_of(error: BaseException) -> Outcome:
    """Return the status of a call whose handler raised `error`.

    The text of an unexpected error stays in the server's log: it may name anything.
    """
    if isinstance(error, StreamkitError) and not error.internal:
        trailers: Headers = []
        if isinstance(error, StreamGapError):
            trailers.append((OLDEST_HEADER, str(error.oldest)))
            trailers.append((NEWEST_HEADER, str(error.newest)))
        if error.hint:
            trailers.append((HINT_HEADER, encode_message(error.hint)))
        if error.details:
            trailers.append(details_of(error.status, str(error), error.details))
        return Outcome(error.status, str(error), trailers)
    if isinstance(error, GRPCError):
        text = error.message or ""
        details = [] if not error.details else [details_of(error.status, text, error.details)]
        return Outcome(error.status, text, details)
    return BROKEN


def details_of(status: Status, message: str, details: Any) -> tuple[str, str]:
    """Return the trailer for messages, or for an encoded google.rpc.Status.

    InternalError for what is neither.
    """
    if not isinstance(details, bytes):
        if isinstance(details, str) or not isinstance(details, Iterable):
            details = [details]
        details = pack_details(status.value, message, details)
    return details_header(details)
