"""Metadata, timeouts and status messages as gRPC writes them in HTTP/2 headers."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from multidict import MultiDict

from streamkit.errors import InvalidArgumentError, internal

__all__ = [
    "Headers",
    "Metadata",
    "MetadataLike",
    "decode_message",
    "decode_metadata",
    "decode_timeout",
    "encode_message",
    "encode_metadata",
    "encode_timeout",
]

Headers = list[tuple[str, str]]
Metadata = MultiDict[str | bytes]
MetadataLike = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_KEY = re.compile(r"[0-9a-z_.\-]+")
_VALUE = re.compile(r"[ -~]*")
_PUSH_BACK = "grpc-retry-pushback-ms"
"""The one key of gRPC's own that is an application's to set and to read."""
_OWN = frozenset({"te", "content-type", "user-agent", "content-length", "host"})
_UNQUOTED = "".join(chr(c) for c in range(0x20, 0x7F) if c != 0x25)
_MESSAGE_BYTES = 1024  # grpcio refuses more than 16 KiB of headers and then hides the status


def decode_timeout(value: str) -> float:
    """Return the seconds of a grpc-timeout header; ValueError when it is malformed."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise ValueError(f"malformed grpc-timeout {value[:20]!r}")
    return int(match[1]) * _SECONDS[match[2]]


def encode_timeout(seconds: float) -> str:
    """Return the grpc-timeout header for a time left; at most eight digits, never rounded up."""
    for unit in "numSMH":
        amount = seconds / _SECONDS[unit]
        if amount < 100_000_000:
            return f"{max(int(amount), 0)}{unit}"
    return "99999999H"


def encode_message(text: str) -> str:
    """Return a status message as a grpc-message header, cut to what every peer accepts."""
    data = text.encode("utf-8", "replace")
    if len(data) > _MESSAGE_BYTES:
        text = data[: _MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "..."
    # A header value must not begin or end with a space.
    quoted = quote(text, safe=_UNQUOTED, encoding="utf-8", errors="replace")
    core = quoted.strip(" ")
    if len(core) == len(quoted):
        return quoted
    front = len(quoted) - len(quoted.lstrip(" "))
    back = len(quoted) - front - len(core)
    return "%20" * front + core + "%20" * back


def decode_message(value: str) -> str:
    """Return the text of a grpc-message header, whose characters are bytes; broken escapes never
    raise. A server that does not escape its UTF-8 is understood, too."""
    if not value.isascii():
        value = value.encode("latin-1", "replace").decode("utf-8", "replace")
    return unquote(value, encoding="utf-8", errors="replace")


def decode_metadata(headers: Iterable[tuple[str, str]]) -> Metadata:
    """Return the custom metadata of a header list.

    ValueError when a -bin value is not base64. Text that gRPC does not allow is left out, so that
    whatever is here may also be sent.
    """
    metadata: Metadata = MultiDict()
    for key, value in headers:
        if key[:1] == ":" or _is_grpcs(key) or key in _OWN:
            continue
        if key.endswith("-bin"):
            for part in value.split(","):
                metadata.add(key, _from_base64(part.strip()))
        elif _VALUE.fullmatch(value):
            metadata.add(key, value)
    return metadata


def _is_grpcs(key: str) -> bool:
    return key.startswith("grpc-") and key != _PUSH_BACK


def _from_base64(text: str) -> bytes:
    bare = text.rstrip("=")
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("malformed binary metadata") from error


def encode_metadata(metadata: MetadataLike) -> Headers:
    """Return header fields for custom metadata; InvalidArgumentError names a bad key, which is a
    mistake of this side's."""
    items = metadata.items() if isinstance(metadata, Mapping) else metadata
    headers: Headers = []
    for key, value in items:
        key = key.lower()
        if key in _OWN or _is_grpcs(key) or not _KEY.fullmatch(key):
            raise internal(InvalidArgumentError(f"metadata key {key[:60]!r} is not allowed"))
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise internal(InvalidArgumentError(f"metadata {key!r} needs bytes"))
            headers.append((key, b64encode(value).rstrip(b"=").decode("ascii")))
        elif isinstance(value, str) and _VALUE.fullmatch(value):
            # A space at either end is not a valid field value in HTTP/2.
            headers.append((key, value.strip(" ")))
        else:
            raise internal(InvalidArgumentError(f"metadata {key!r} needs printable ASCII text"))
    return headers
