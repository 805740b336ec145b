"""Message compression: what is accepted, how it is bounded, how it is offered."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from streamkit.errors import InternalError, LimitError, UnimplementedError

__all__ = ["ACCEPTED", "compress", "inflater", "offered"]

_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # zlib's names for the two containers
ACCEPTED = "identity,gzip,deflate"
"""The value of grpc-accept-encoding."""
_LEVEL = 1  # on a stream of messages the time counts; higher levels gain a few per cent


def inflater(encoding: str, limit: int) -> Callable[[bytes], bytes] | None:
    """Return the reader of messages in a grpc-encoding; None for identity.

    The result never grows beyond `limit`, whatever the input claims.
    """
    if encoding in ("", "identity"):
        return None
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnimplementedError(
            f"grpc-encoding {encoding[:40]!r} is not supported", hint=f"use one of {ACCEPTED}"
        )

    def inflate(data: bytes) -> bytes:
        reader = zlib.decompressobj(bits)
        try:
            result = reader.decompress(data, limit + 1)
        except zlib.error as error:
            raise InternalError("compressed message cannot be read") from error
        if len(result) > limit:
            raise LimitError(f"message is over the limit of {limit} bytes after inflation")
        if not reader.eof:
            raise InternalError("compressed message is truncated")
        return result

    return inflate


def compress(encoding: str, data: bytes) -> bytes:
    """Return `data` as a message of that grpc-encoding."""
    writer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return writer.compress(data) + writer.flush()


def offered(header_values: Iterable[str]) -> frozenset[str]:
    """Return the encodings of a peer's grpc-accept-encoding that can be written here."""
    names = {name.strip() for value in header_values for name in value.split(",")}
    return frozenset(names & _WINDOW_BITS.keys())
