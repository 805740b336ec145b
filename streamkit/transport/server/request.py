"""Reading a request's headers: what call it is, or which answer it gets instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from streamkit.config import TransportLimits
from streamkit.errors import Status, UnimplementedError
from streamkit.transport.grpc.compression import ACCEPTED, inflater, offered
from streamkit.transport.grpc.metadata import Headers, Metadata, decode_metadata, decode_timeout
from streamkit.transport.http2.blocks import Fields

__all__ = ["Refusal", "Request", "read_request", "read_web"]

_NAME = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_FORBIDDEN = re.compile(r"[\x00\r\n]")
_CONNECTION_FIELDS = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
)
_CUSTOM = re.compile(r"(?!grpc-)[a-z0-9_.\-]+(?<!-bin)")
_TEXT = re.compile(r"[ -~]*")
_NOT_CUSTOM = _CONNECTION_FIELDS | {"te", "content-type", "user-agent", "content-length", "host"}
_PSEUDO = frozenset({":method", ":scheme", ":path", ":authority"})
_FIELD_OVERHEAD = 32  # as HTTP/2 counts a header field against a limit


class Request(NamedTuple):
    """A call that can be made."""

    path: str
    metadata: Metadata
    timeout: float | None
    user_agent: str
    inflate: Callable[[bytes], bytes] | None
    accepts: frozenset[str]
    """Encodings that the caller reads and that can be written here."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The whole answer to a request that is no call; without `headers`, a reset."""

    headers: Headers | None


def _refuse(http: int, status: Status, message: str, *more: tuple[str, str]) -> Refusal:
    return Refusal(
        [
            (":status", str(http)),
            ("content-type", "application/grpc"),
            ("grpc-status", str(status.value)),
            ("grpc-message", message),
            *more,
        ]
    )


_MALFORMED = Refusal(None)


def read_request(headers: Headers, subtype: str, limits: TransportLimits) -> Request | Refusal:
    """Return the call that a header list asks for.

    What HTTP/2 calls malformed is reset; everything else gets exactly one gRPC status.
    """
    if isinstance(headers, Fields) and headers.head is not None:
        found = _read_on(headers, headers.head, subtype, limits)
        if found is not None:
            return found
    return _read(headers, subtype, limits)


def _read_on(
    headers: Fields, head: Fields, subtype: str, limits: TransportLimits
) -> Request | None:
    """Return a call whose headers begin as others did, and differ in nothing but its deadline and
    metadata; None: they are to be read as a whole."""
    begun = head.made.get("begun")
    if begun is None:
        begun = head.made["begun"] = _read(head, subtype, limits)
    if not isinstance(begun, Request) or headers.size > limits.max_header_list:
        return None
    timeout, metadata = begun.timeout, begun.metadata.copy()
    for name, value in headers[len(head) :]:
        if name == "grpc-timeout":
            try:
                seconds = decode_timeout(value)
            except ValueError:
                return None
            timeout = seconds if timeout is None else min(timeout, seconds)
        elif _CUSTOM.fullmatch(name) and name not in _NOT_CUSTOM and _TEXT.fullmatch(value):
            metadata.add(name, value)
        else:
            return None
    return Request(begun.path, metadata, timeout, begun.user_agent, begun.inflate, begun.accepts)


def _read(headers: Headers, subtype: str, limits: TransportLimits) -> Request | Refusal:
    fields = _fields(headers)
    if fields is None:
        return _MALFORMED
    size = _size(headers)
    if size > limits.max_header_list:
        text = f"header list of {size} bytes is over the limit of {limits.max_header_list}"
        return _refuse(200, Status.RESOURCE_EXHAUSTED, text)
    if fields[":method"] != "POST":
        return _refuse(405, Status.INTERNAL, "the method is not POST", ("allow", "POST"))
    content_type = fields.get("content-type", "")
    if not _speaks(content_type, subtype):
        return _refuse(415, Status.UNKNOWN, "the content-type is not application/grpc")
    if fields.get("te") != "trailers":
        return _refuse(400, Status.INTERNAL, "te: trailers is missing")
    try:
        timeouts = [decode_timeout(value) for name, value in headers if name == "grpc-timeout"]
        metadata = decode_metadata(headers)
    except ValueError as error:
        return _refuse(200, Status.INTERNAL, str(error).encode("ascii", "replace").decode())
    try:
        inflate = inflater(fields.get("grpc-encoding", ""), limits.max_message)
    except UnimplementedError:
        return _refuse(
            200,
            Status.UNIMPLEMENTED,
            "grpc-encoding is not supported",
            ("grpc-accept-encoding", ACCEPTED),
        )
    return Request(
        path=fields[":path"],
        metadata=metadata,
        timeout=min(timeouts, default=None),
        user_agent=fields.get("user-agent", ""),
        inflate=inflate,
        accepts=offered(value for name, value in headers if name == "grpc-accept-encoding"),
    )


def read_web(headers: Headers, limits: TransportLimits) -> Refusal | None:
    """Return why a request that is no gRPC is refused at once; None: it is not."""
    if _fields(headers) is None:
        return _MALFORMED
    return Refusal([(":status", "431")]) if _size(headers) > limits.max_header_list else None


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in headers)


def _fields(headers: Headers) -> dict[str, str] | None:
    """Return the fields of a well-formed request header list by name, None for any other."""
    fields: dict[str, str] = {}
    pseudo_over = False
    for name, value in headers:
        if not _NAME.fullmatch(name) or _FORBIDDEN.search(value):
            return None
        if name[0] == ":":
            if pseudo_over or name in fields or name not in _PSEUDO:
                return None
        else:
            pseudo_over = True
            if name in _CONNECTION_FIELDS:
                return None
        fields[name] = value
    if not (":method" in fields and ":path" in fields and ":scheme" in fields):
        return None
    return fields if fields[":path"] else None


def _speaks(content_type: str, subtype: str) -> bool:
    base = content_type.partition(";")[0].strip().lower()
    return base in ("application/grpc", f"application/grpc+{subtype}")
