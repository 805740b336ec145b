"""Files as protoc describes them, in their own bytes.

betterproto's classes of descriptor.proto keep no zero that stands there on purpose: reading and
writing a file would lose `oneof_index = 0`, and with it the first oneof of every message, and a
`packed = false`. So what goes on is the bytes that protoc has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import betterproto
from betterproto.lib.google.protobuf import SourceCodeInfo

__all__ = ["delimited", "files_in", "set_of", "trimmed"]

_FILE = 1  # of a FileDescriptorSet
_PACKAGE, _SOURCE = 2, 9  # of a FileDescriptorProto


def files_in(descriptor_set: bytes) -> list[bytes]:
    """Return the files of a FileDescriptorSet, each a FileDescriptorProto."""
    return [body for number, body, _ in _fields(descriptor_set) if number == _FILE]


def set_of(files: Iterable[bytes]) -> bytes:
    """Return the FileDescriptorSet of files."""
    return b"".join(delimited(_FILE, file) for file in files)


def trimmed(file: bytes) -> bytes:
    """Return a file without the places of its source that have no comment of its author's."""
    parts: list[bytes] = []
    package, source = b"", SourceCodeInfo()
    for number, body, whole in _fields(file):
        if number == _SOURCE:
            source = SourceCodeInfo().parse(body)
            continue
        if number == _PACKAGE:
            package = body
        parts.append(whole)
    source.location = [
        place
        for place in source.location
        if not package.startswith(b"google.protobuf")
        and (place.leading_comments or place.trailing_comments)
    ]
    return b"".join(parts) + (delimited(_SOURCE, bytes(source)) if source.location else b"")


def delimited(number: int, body: bytes) -> bytes:
    """Return a field that holds bytes, or a message."""
    return betterproto.encode_varint(number << 3 | 2) + betterproto.encode_varint(len(body)) + body


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, content and whole of each field that holds bytes; of others the content is empty."""
    at = 0
    while at < len(message):
        start = at
        tag, at = betterproto.decode_varint(message, at)
        kind, body = tag & 7, b""
        if kind == 2:
            size, at = betterproto.decode_varint(message, at)
            body, at = message[at : at + size], at + size
        elif kind == 0:
            _, at = betterproto.decode_varint(message, at)
        else:
            at += 8 if kind == 1 else 4
        yield tag >> 3, body, message[start:at]
