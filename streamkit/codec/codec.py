"""The codec that grpclib is given, and the functions for everybody else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import betterproto
from grpclib.encoding.base import CodecBase

from streamkit.codec.message.install import decoder_for, encoder_for
from streamkit.errors import DecodeError
from streamkit.framing import prefix

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
    return prefix(len(data)) + data


class StreamkitCodec(CodecBase):
    """Encodes and decodes betterproto messages; classes of google.protobuf pass through theirs.

    Bytes in place of a message are taken as the message's encoding.
    """

    __content_subtype__ = "proto"

    def __init__(self) -> None:
        self._encoders: dict[type, Callable[[Any], bytes]] = {}
        self._decoders: dict[type, Callable[[bytes], Any]] = {}

    def encode(self, message: Any, message_type: Any) -> bytes:
        if isinstance(message, message_type):
            encoder = self._encoders.get(type(message)) or self._encoder(type(message))
            return encoder(message)
        if isinstance(message, bytes):
            return message
        raise TypeError(f"a {type(message).__name__} was given for {message_type.__name__}")

    def decode(self, data: bytes, message_type: Any) -> Any:
        return (self._decoders.get(message_type) or self._decoder(message_type))(data)

    def decoder(self, message_type: Any) -> Callable[[bytes], Any]:
        """Return what `decode` does for one message type, for a stream of such messages."""
        if type(self).decode is not StreamkitCodec.decode:
            return partial(self.decode, message_type=message_type)
        return self._decoders.get(message_type) or self._decoder(message_type)

    def _decoder(self, cls: Any) -> Callable[[bytes], Any]:
        ours = issubclass(cls, betterproto.Message)
        decoder = self._decoders[cls] = decoder_for(cls) if ours else _google_decoder(cls)
        return decoder

    def _encoder(self, cls: Any) -> Callable[[Any], bytes]:
        if issubclass(cls, betterproto.Message):
            encoder_for(cls)
            encoder: Callable[[Any], bytes] = cls.__bytes__
        else:
            encoder = cls.SerializeToString
        self._encoders[cls] = encoder
        return encoder


def _google_decoder(cls: Any) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return cls.FromString(data)
        except Exception as error:
            # Not imported here: google.protobuf is there only if the program brought it.
            google = sys.modules.get("google.protobuf.message")
            if google is not None and isinstance(error, google.DecodeError):
                raise DecodeError(str(error), cls.__name__) from None
            raise

    return decode
