"""How a call ended, as one error of the tree: from statuses, HTTP responses and resets."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterable, Mapping

from grpclib.const import Status

from streamkit.errors import (
    ConnectError,
    InternalError,
    StreamGapError,
    StreamkitError,
    error_from_status,
)
from streamkit.terms import HINT_HEADER, NEWEST_HEADER, OLDEST_HEADER
from streamkit.transport.grpc.details import DETAILS, unpack_details
from streamkit.transport.grpc.metadata import decode_message

__all__ = [
    "lost_error",
    "reason_of",
    "reset_error",
    "response_error",
    "status_error",
    "unfinished_error",
    "unreachable_error",
]

_ERRNO = re.compile(r"\[Errno (\d+)\]")

_HTTP_STATUS = {
    "400": Status.INTERNAL,
    "401": Status.UNAUTHENTICATED,
    "403": Status.PERMISSION_DENIED,
    "404": Status.UNIMPLEMENTED,
    "429": Status.UNAVAILABLE,
    "502": Status.UNAVAILABLE,
    "503": Status.UNAVAILABLE,
    "504": Status.UNAVAILABLE,
}
"""gRPC's table for answers of something that is not a gRPC server; all others are UNKNOWN."""

_RESETS: dict[int, tuple[str, Status]] = {
    0: ("NO_ERROR", Status.INTERNAL),
    1: ("PROTOCOL_ERROR", Status.INTERNAL),
    2: ("INTERNAL_ERROR", Status.INTERNAL),
    3: ("FLOW_CONTROL_ERROR", Status.INTERNAL),
    4: ("SETTINGS_TIMEOUT", Status.INTERNAL),
    5: ("STREAM_CLOSED", Status.UNKNOWN),
    6: ("FRAME_SIZE_ERROR", Status.INTERNAL),
    7: ("REFUSED_STREAM", Status.UNAVAILABLE),
    8: ("CANCEL", Status.CANCELLED),
    9: ("COMPRESSION_ERROR", Status.INTERNAL),
    10: ("CONNECT_ERROR", Status.INTERNAL),
    11: ("ENHANCE_YOUR_CALM", Status.RESOURCE_EXHAUSTED),
    12: ("INADEQUATE_SECURITY", Status.PERMISSION_DENIED),
    13: ("HTTP_1_1_REQUIRED", Status.UNKNOWN),
}
"""gRPC's table for RST_STREAM; codes without a row there are UNKNOWN."""


def reset_error(code: int) -> StreamkitError:
    """Return the error of a stream that the server reset with an HTTP/2 error code."""
    name, status = _RESETS.get(code, (f"code {code}", Status.UNKNOWN))
    error = error_from_status(status, f"the server reset the stream: {name}")
    error.ending = f"reset {name}"
    return error


def unfinished_error(reason: str) -> StreamkitError:
    """Return the error of a response that ended before its status came."""
    error = InternalError(reason)
    error.ending = "unfinished"
    return error


def lost_error(reason: str) -> ConnectError:
    """Return the error of a call whose connection went."""
    error = ConnectError(f"the connection was lost: {reason}")
    error.ending = "lost"
    return error


def unreachable_error(target: str, error: BaseException) -> ConnectError:
    """Return the error of a connection that could not be made."""
    return ConnectError(
        f"cannot connect to {target}: {reason_of(error)}",
        hint="is the server running there, and is the address right?",
    )


def reason_of(error: BaseException) -> str:
    """Return in few words why a connection could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        # asyncio puts "Connect call failed (address)" in place of the system's words; when it has
        # tried several addresses, only in the text of an error without a number.
        number = error.errno or next(iter(_ERRNO.findall(str(error))), None)
        if number is not None:
            return os.strerror(int(number))
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def response_error(fields: Mapping[str, str], subtype: str) -> StreamkitError | None:
    """Return what disqualifies response headers as an answer of gRPC, or None.

    A grpc-status in the same headers outranks the HTTP status: then the server did speak gRPC.
    """
    if "grpc-status" in fields:
        return None
    http = fields.get(":status", "")
    if http != "200":
        status = _HTTP_STATUS.get(http, Status.UNKNOWN)
        error = error_from_status(status, f"the server answered with HTTP status {http or 'none'}")
        error.ending = f"http {http}"
        return error
    kind = fields.get("content-type", "")
    base, _, rest = kind.partition(";")[0].strip().lower().partition("+")
    if base != "application/grpc" or rest not in ("", subtype):
        error = error_from_status(
            Status.UNKNOWN, f"the server answered with content-type {kind or 'none'!r}"
        )
        error.ending = "not grpc"
        return error
    return None


def status_error(trailers: Iterable[tuple[str, str]]) -> StreamkitError | None:
    """Return the error that trailers name, or None for OK; a missing status is an error."""
    fields = dict(trailers)
    value = fields.get("grpc-status")
    if value is None:
        error = error_from_status(Status.UNKNOWN, "the response ended without a status")
        error.ending = "unfinished"
        return error
    try:
        status = Status(int(value))
    except ValueError:
        error = error_from_status(Status.UNKNOWN, f"the response ended with status {value[:20]!r}")
        error.ending = "status"
        return error
    if status is Status.OK:
        return None
    message = decode_message(fields.get("grpc-message", ""))
    error = error_from_status(status, message)
    if DETAILS in fields:
        error.status_details, error.details = unpack_details(fields[DETAILS])
    error.ending = "status"
    error.hint = decode_message(fields.get(HINT_HEADER, ""))
    if isinstance(error, StreamGapError):
        error.oldest = _position(fields.get(OLDEST_HEADER))
        error.newest = _position(fields.get(NEWEST_HEADER))
    return error


def _position(value: str | None) -> int:
    return int(value) if value is not None and value.isascii() and value.isdigit() else 0
