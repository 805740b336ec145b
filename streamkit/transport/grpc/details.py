"""Details of an error: messages beside the status text, in `grpc-status-details-bin`.

What travels is a google.rpc.Status, whose details are any messages. Those of google.rpc are there
as classes (`streamkit.generated.google.rpc`), and so are the well-known ones; another one travels
and arrives as a google.protobuf.Any.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import betterproto
import betterproto.lib.google.protobuf as well_known

from streamkit.codec import decode, encode
from streamkit.errors import InternalError, StreamkitError
from streamkit.generated.google import rpc

__all__ = ["DETAILS", "details_header", "pack_details", "packed_details", "unpack_details"]

DETAILS = "grpc-status-details-bin"
MOST = 6 * 1024
"""Bytes of all details: grpcio takes 8 KiB of headers as they come, and hides the status of more
than 16."""
_WELL_KNOWN = frozenset(
    [
        "Any",
        "BoolValue",
        "BytesValue",
        "DoubleValue",
        "Duration",
        "Empty",
        "FieldMask",
        "FloatValue",
        "Int32Value",
        "Int64Value",
        "ListValue",
        "StringValue",
        "Struct",
        "Timestamp",
        "UInt32Value",
        "UInt64Value",
        "Value",
    ]
)
"""Of google.protobuf; its other messages describe schemas."""
_PREFIX = "type.googleapis.com/"
_PACKAGES: dict[str, ModuleType] = {"google.rpc": rpc, "google.protobuf": well_known}
_HOMES = {
    rpc.__name__: "google.rpc",
    "betterproto.lib.std.google.protobuf": "google.protobuf",
    "betterproto.lib.pydantic.google.protobuf": "google.protobuf",
}


def pack_details(code: int, message: str, details: Iterable[object]) -> bytes:
    """Return an encoded google.rpc.Status.

    InternalError for what is no message, or too much of them: the fault of who raised the error.
    """
    status = rpc.Status(code=code, message=message, details=[_any(detail) for detail in details])
    data = encode(status)
    if len(data) > MOST:
        raise InternalError(f"details of an error take {len(data)} bytes, at most {MOST} may")
    return data


def details_header(data: bytes) -> tuple[str, str]:
    """Return the trailer for an encoded google.rpc.Status."""
    return DETAILS, b64encode(data).rstrip(b"=").decode("ascii")


def unpack_details(header: str) -> tuple[bytes, tuple[Any, ...]]:
    """Return the encoded google.rpc.Status of a trailer, and the messages in it.

    Nothing for what cannot be read: the status itself stands without it.
    """
    data, packed = packed_details(header)
    return data, tuple(map(_message, packed))


def packed_details(header: str) -> tuple[bytes, list[well_known.Any]]:
    """As `unpack_details`, with the messages as they travel."""
    bare = header.rstrip("=")
    try:
        data = b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b"", []
    try:
        return data, decode(rpc.Status, data).details
    except StreamkitError:
        return data, []


def _any(detail: object) -> well_known.Any:
    if isinstance(detail, well_known.Any):
        return detail
    if isinstance(detail, betterproto.Message):
        package = _HOMES.get(type(detail).__module__)
        if package is None:
            raise InternalError(
                f"the full name of {type(detail).__name__} is not known",
                hint="put it into a google.protobuf.Any",
            )
        return well_known.Any(f"{_PREFIX}{package}.{type(detail).__name__}", encode(detail))
    descriptor = getattr(detail, "DESCRIPTOR", None)
    serialize = getattr(detail, "SerializeToString", None)
    if descriptor is None or serialize is None:
        raise InternalError(f"a detail of an error is a {type(detail).__name__}, not a message")
    return well_known.Any(_PREFIX + descriptor.full_name, serialize())


def _message(packed: well_known.Any) -> betterproto.Message:
    """What is in an Any; itself when nobody here knows its class."""
    package, _, name = packed.type_url.rpartition("/")[2].rpartition(".")
    kind = getattr(_PACKAGES.get(package), name, None)
    if not (isinstance(kind, type) and issubclass(kind, betterproto.Message)):
        return packed
    if package == "google.protobuf" and name not in _WELL_KNOWN:
        return packed
    try:
        return decode(kind, packed.value)
    except Exception:  # whatever a codec raises is about these bytes, and they are a peer's
        return packed
