"""gRPC-Web, binary and text: what browsers' gRPC clients speak.

The rules are those of PROTOCOL-WEB.md in the gRPC repository: gRPC's frames, the trailers as a last
frame with the flag 0x80, and in the text form base64, whose padding may stand in the middle.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence

from grpclib.encoding.base import CodecBase

from streamkit.config import TransportLimits
from streamkit.doors.exchange import WebExchange, messages_of, metadata_of
from streamkit.errors import InvalidArgumentError, Status
from streamkit.framing import PREFIX
from streamkit.transport import WebCall
from streamkit.transport.grpc.compression import inflater, offered
from streamkit.transport.grpc.metadata import Headers, decode_timeout, encode_message
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.server.outcome import Outcome

__all__ = ["GrpcWebExchange", "speaks_grpc_web"]

_BINARY = ("application/grpc-web", "application/grpc-web+proto")
_TEXT = ("application/grpc-web-text", "application/grpc-web-text+proto")
_TRAILERS = 0x80


def speaks_grpc_web(content_type: str) -> bool:
    """Whether a content type is one of gRPC-Web's four."""
    return content_type in _BINARY or content_type in _TEXT


class GrpcWebExchange(WebExchange):
    """One call of a gRPC-Web client."""

    carrier = "grpc-web"
    as_text: Callable[[Sequence[bytes | memoryview]], bytes] | None = None
    """Makes the text form, where that is what is spoken; once for all who are sent the same."""

    def __init__(
        self,
        call: WebCall,
        method: str,
        requests: Sequence[bytes],
        codec: CodecBase,
        content_type: str,
    ) -> None:
        headers = dict(call.headers)
        timeout = headers.get("grpc-timeout")
        super().__init__(
            call,
            method,
            requests,
            codec,
            metadata=metadata_of(call.headers),
            timeout=None if timeout is None else decode_timeout(timeout),
        )
        self.user_agent = headers.get("x-user-agent", self.user_agent)
        self.accepts = offered(v for n, v in call.headers if n == "grpc-accept-encoding")
        self.text = content_type in _TEXT
        self._content_type = _TEXT[1] if self.text else _BINARY[1]

    @classmethod
    async def read(
        cls,
        call: WebCall,
        method: str,
        codec: CodecBase,
        limits: TransportLimits,
        *,
        many: bool,
        most: int,
    ) -> GrpcWebExchange:
        """Read the request, with `many` of up to `most` messages. StreamkitError or ValueError for
        one that is none."""
        headers = dict(call.headers)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        inflate = inflater(headers.get("grpc-encoding", ""), limits.max_message)
        arriving = call.arriving(inflate) if many and content_type in _BINARY else None
        if arriving is not None:
            exchange = cls(call, method, (), codec, content_type)
            exchange.arriving = arriving
            return exchange
        most_bytes = limits.max_message + 5
        body = await call.read(most_bytes * 4 // 3 + 8 if content_type in _TEXT else most_bytes)
        if content_type in _TEXT:
            body = _from_text(body)
        buffer = ReceiveBuffer(limits.max_message)
        buffer.inflate = inflate
        messages = messages_of(buffer, body, many=many, most=most)
        return cls(call, method, messages, codec, content_type)

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True
        fields = [("content-type", self._content_type), *metadata]
        if compression:
            fields.append(("grpc-encoding", compression))
        self.call.start(200, fields)

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        if not self.text:
            return self.call.write(parts)
        assert self.as_text is not None
        return self.call.write((self.as_text(parts),))

    def put_status(self, outcome: Outcome) -> None:
        trailers = [("grpc-status", str(outcome.status.value))]
        if outcome.message:
            trailers.append(("grpc-message", encode_message(outcome.message)))
        trailers += outcome.trailers
        if not self.headers_sent:
            self.headers_sent = True
            fields = [("content-type", self._content_type), *trailers]
            self.call.start(200, fields, length=0)
        else:
            data = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1")
            self.put_parts((PREFIX.pack(_TRAILERS, len(data)), data))
        self.call.end()


def _from_text(body: bytes) -> bytes:
    """Decode base64 whose padding may stand wherever the sender flushed; one pass."""
    body = body.translate(None, b"\r\n")
    parts = []
    start = 0
    while start < len(body):
        # Up to the next padding in one piece: it ends a multiple of four characters.
        end = body.find(b"=", start)
        stop = len(body) if end < 0 else start + ((end - start) // 4 + 1) * 4
        try:
            parts.append(binascii.a2b_base64(body[start:stop], strict_mode=True))
        except binascii.Error as error:
            raise InvalidArgumentError(f"the body is no base64: {error}") from None
        start = stop
    return b"".join(parts)


def refusal(status: Status, message: str) -> Headers:
    """Return the headers of a response that is an error and nothing else."""
    return [
        ("content-type", _BINARY[1]),
        ("grpc-status", str(status.value)),
        ("grpc-message", encode_message(message)),
    ]
