"""How a stream ends that ends without a status, and for what a connection is ended."""

from __future__ import annotations

from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

__all__ = ["NotHttp2Error", "StreamLost", "TooBusyError"]

_TLS = (b"\x15\x03", b"\x16\x03")  # an alert, a handshake
_HTTP1 = (b"HTTP/1", b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ")


class TooBusyError(ProtocolError):
    """The peer does something harmless far too often."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class NotHttp2Error(ProtocolError):
    """The peer speaks something else; says what, as far as its first bytes tell."""

    def __init__(self, data: bytes) -> None:
        if data.startswith(_TLS):
            super().__init__("TLS instead of plain HTTP/2")
        elif data.startswith(_HTTP1):
            super().__init__("HTTP/1 instead of HTTP/2")
        else:
            super().__init__("not HTTP/2")


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
