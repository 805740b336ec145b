"""The codec that grpclib is given, and the functions for everybody else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import betterproto
from grpclib.encoding.base import CodecBase

from streamkit.codec._install import decoder_for
from streamkit.errors import DecodeError

__all__ = ["StreamkitCodec", "decode", "encode", "frame"]

_M = TypeVar("_M", bound=betterproto.Message)


def encode(message: betterproto.Message) -> bytes:
    """Return the message's bytes. Raises EncodeError for a value that its field cannot hold."""
    return message.__bytes__()


def decode(cls: type[_M], data: bytes) -> _M:
    """Return the message. Raises DecodeError for bytes that are not one."""
    return decoder_for(cls)(data)


def frame(message: betterproto.Message) -> bytes:
    """Return the message as gRPC puts it on a stream: not compressed, length, bytes."""
    data = message.__bytes__()
    return b"".join((b"\0", len(data).to_bytes(4, "big"), data))


class StreamkitCodec(CodecBase):
    """Encodes and decodes betterproto messages; classes of google.protobuf pass through theirs.

    Bytes in place of a message are taken as the message's encoding.
    """

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        if isinstance(message, message_type):
            data: bytes = message.SerializeToString()
            return data
        if isinstance(message, bytes):
            return message
        raise TypeError(f"a {type(message).__name__} was given for {message_type.__name__}")

    def decoder(self, message_type: Any) -> Callable[[bytes], Any]:
        """Return what `decode` does for one message type, for a stream of such messages."""
        if issubclass(message_type, betterproto.Message):
            return decoder_for(message_type)
        return lambda data: self.decode(data, message_type)

    def decode(self, data: bytes, message_type: Any) -> Any:
        if issubclass(message_type, betterproto.Message):
            return decoder_for(message_type)(data)
        try:
            return message_type.FromString(data)
        except Exception as error:
            # Not imported here: google.protobuf is there only if the program brought it.
            google = sys.modules.get("google.protobuf.message")
            if google is not None and isinstance(error, google.DecodeError):
                raise DecodeError(str(error), message_type.__name__) from None
            raise
