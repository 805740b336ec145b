"""The one error tree of streamkit, and the one table between it and gRPC status codes.

    StreamkitError                      every error that streamkit raises on purpose
    |-- InvalidArgumentError            the request is wrong; the message names the field
    |   |-- DecodeError                 bytes that are not the message they should be
    |   |-- EncodeError                 a value that its field cannot hold
    |   `-- QueryError                  the database refused or failed the statement
    |-- NotFoundError                   no such job, table, database
    |-- AlreadyExistsError              the job is known already
    |-- AuthError                       not authenticated, or not allowed
    |-- PreconditionError               right request, wrong state (another journal's position)
    |-- StreamGapError                  the position is older than what is kept
    |-- LimitError                      a limit of the server or of the client was reached
    |-- ConnectError                    no server there, connection lost, server going away
    |-- DeadlineError                   the time allowed is over
    |-- CallCancelledError              the call was cancelled by the other side
    |-- AbortedError                    lost against a concurrent change; repeat
    |-- UnimplementedError              no such method, encoding or feature
    |-- InternalError                   a fault of the server or the protocol
    |-- JobFailedError                  a watched job ended other than completed
    `-- StoreError                      the store cannot be opened or written

A boundary translates once: the server turns a StreamkitError into its status, the client turns a
status back into the same class. asyncio.CancelledError is never part of this tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self, TypeVar

from grpclib.const import Status

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "AuthError",
    "CallCancelledError",
    "ConnectError",
    "DeadlineError",
    "DecodeError",
    "EncodeError",
    "InternalError",
    "InvalidArgumentError",
    "JobFailedError",
    "LimitError",
    "NotFoundError",
    "PreconditionError",
    "QueryError",
    "Status",
    "StoreError",
    "StreamGapError",
    "StreamkitError",
    "UnimplementedError",
    "error_from_status",
    "error_named",
    "internal",
]


Detail = TypeVar("Detail")
Error = TypeVar("Error", bound="StreamkitError")


class StreamkitError(Exception):
    """Base of the tree.

    `message` says what happened in one line, `hint` (may be empty) what to do about it, `status`
    is the gRPC status that it travels as. The message is safe to show: no credentials, no paths
    of the server.
    """

    default_status: ClassVar[Status] = Status.UNKNOWN

    ending: str = ""
    """How the call ended that failed with this, in the words of `streamkit.client.endings`; empty
    for what did not come from a call's other side."""

    internal: bool | None = None
    """Whether no caller is to hear of it: it came from a call that was made here, or tells of a
    mistake made here. A handler that lets it pass is at fault itself: its caller gets INTERNAL, the
    log a line. `own` makes it the handler's. None: where it was raised decides."""

    details: tuple[Any, ...] = ()
    """Messages that say more (of `streamkit.generated.google.rpc`, say), both ways."""

    status_details: bytes = b""
    """Of an error from another side: the google.rpc.Status with the details, as it came."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: Status | None = None,
        details: Iterable[Any] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = self.default_status if status is None else status
        if details:
            self.details = tuple(details)

    def detail(self, kind: type[Detail]) -> Detail | None:
        """Return the first detail of this class, or None."""
        return next((found for found in self.details if isinstance(found, kind)), None)

    def own(self) -> Self:
        """Return the error as one of this side's own, which may go on to a caller."""
        self.internal = False
        return self

    def __str__(self) -> str:
        return self.message


class InvalidArgumentError(StreamkitError):
    """The request is wrong and repeating it will not help; the message names the field."""

    default_status = Status.INVALID_ARGUMENT


class DecodeError(InvalidArgumentError, ValueError):
    """Bytes or JSON that are not a valid message. `reason` says why, `path` names the field."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path


class EncodeError(InvalidArgumentError):
    """A value that its field cannot hold. `reason` says why, `path` names the field.

    On a server this is the handler's fault, not the caller's: it travels as INTERNAL.
    """

    default_status = Status.INTERNAL
    internal = True

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path


class QueryError(InvalidArgumentError):
    """The database refused or failed the statement; the message holds its own words."""


class NotFoundError(StreamkitError):
    """The named thing does not exist."""

    default_status = Status.NOT_FOUND


class AlreadyExistsError(StreamkitError):
    """The thing to be created exists."""

    default_status = Status.ALREADY_EXISTS


class AuthError(StreamkitError):
    """Not authenticated (UNAUTHENTICATED) or not allowed (PERMISSION_DENIED)."""

    default_status = Status.PERMISSION_DENIED


class PreconditionError(StreamkitError):
    """The request is well-formed but does not fit the state that it meets."""

    default_status = Status.FAILED_PRECONDITION


class StreamGapError(StreamkitError):
    """The wanted position is older than what is kept; `oldest` and `newest` are what is there."""

    default_status = Status.OUT_OF_RANGE

    def __init__(self, message: str, *, oldest: int = 0, newest: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.oldest = oldest
        self.newest = newest


class LimitError(StreamkitError):
    """A stated limit was reached: message size, streams, rows, buffer, stall time."""

    default_status = Status.RESOURCE_EXHAUSTED


class ConnectError(StreamkitError):
    """No server there, the connection broke, or the server is going away. Worth a retry."""

    default_status = Status.UNAVAILABLE


class DeadlineError(StreamkitError):
    """The time allowed is over."""

    default_status = Status.DEADLINE_EXCEEDED


class CallCancelledError(StreamkitError):
    """The other side cancelled the call."""

    default_status = Status.CANCELLED


class AbortedError(StreamkitError):
    """Lost against a concurrent change; the call may be repeated."""

    default_status = Status.ABORTED


class UnimplementedError(StreamkitError):
    """The server does not know the method, the encoding or the feature."""

    default_status = Status.UNIMPLEMENTED


class InternalError(StreamkitError):
    """A fault of the server or a violation of the protocol."""

    default_status = Status.INTERNAL


class JobFailedError(StreamkitError):
    """A job ended as failed, cancelled or lost; `job_status` says which."""

    default_status = Status.ABORTED

    def __init__(self, message: str, *, job_status: str = "failed") -> None:
        super().__init__(message)
        self.job_status = job_status


class StoreError(StreamkitError):
    """The store cannot be opened or written: locked, from a newer version, disk full."""

    default_status = Status.UNAVAILABLE


_BY_STATUS: dict[Status, type[StreamkitError]] = {
    Status.CANCELLED: CallCancelledError,
    Status.UNKNOWN: InternalError,
    Status.INVALID_ARGUMENT: InvalidArgumentError,
    Status.DEADLINE_EXCEEDED: DeadlineError,
    Status.NOT_FOUND: NotFoundError,
    Status.ALREADY_EXISTS: AlreadyExistsError,
    Status.PERMISSION_DENIED: AuthError,
    Status.RESOURCE_EXHAUSTED: LimitError,
    Status.FAILED_PRECONDITION: PreconditionError,
    Status.ABORTED: AbortedError,
    Status.OUT_OF_RANGE: StreamGapError,
    Status.UNIMPLEMENTED: UnimplementedError,
    Status.INTERNAL: InternalError,
    Status.UNAVAILABLE: ConnectError,
    Status.DATA_LOSS: InternalError,
    Status.UNAUTHENTICATED: AuthError,
}


def error_from_status(status: Status, message: str) -> StreamkitError:
    """Return the tree's error for a status other than OK; its `status` is the one given."""
    error = _BY_STATUS[status](message or status.name)
    error.status = status
    return error


def error_named(
    name: str, message: str, hint: str = "", status: Status | None = None
) -> StreamkitError:
    """Return the tree's error of a class's name: one that another process of ours has raised.
    InternalError for a name that is none."""
    kind = globals().get(name) if name in __all__ else None
    if not (isinstance(kind, type) and issubclass(kind, StreamkitError)):
        return InternalError(message)
    try:
        error = kind(message, hint=hint)
    except TypeError:  # two of them are made of other things
        error = kind(message)
    if status is not None:
        error.status = status
    return error


def internal(error: Error) -> Error:
    """Return the error as one that no caller is to hear of (`StreamkitError.internal`)."""
    error.internal = True
    return error
