"""How a stream ends that ends without a status."""

from __future__ import annotations

from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes

from streamkit.errors import Status

__all__ = ["StreamLost"]

_BY_CODE = {
    ErrorCodes.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCodes.CANCEL: Status.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
"""RST_STREAM code -> status, as the gRPC specification maps them; the others are INTERNAL."""


class StreamLost(StreamTerminatedError):
    """The stream is over without a status: reset, refused, or its connection went.

    `code` is the RST_STREAM code, None when the connection was lost. `refused`: the peer has not
    looked at the call, so it may be repeated whatever it does.
    """

    def __init__(self, reason: str, code: int | None = None, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.refused = refused or code == ErrorCodes.REFUSED_STREAM

    def fresh(self) -> StreamLost:
        """Return the same error to be raised: the kept one must not gather tracebacks, whose
        frames would keep the stream alive."""
        return StreamLost(self.reason, self.code, refused=self.refused)

    @property
    def status(self) -> Status:
        """The gRPC status that the specification gives to this end."""
        if self.code is None:
            return Status.UNAVAILABLE
        try:
            return _BY_CODE.get(ErrorCodes(self.code), Status.INTERNAL)
        except ValueError:
            return Status.INTERNAL
