"""The Connect protocol: unary calls and streams, in JSON or protobuf, from any HTTP client.

The rules are those of https://connectrpc.com/docs/protocol: a unary call is a plain POST whose
response is the message, or an error in JSON with the HTTP status that fits; a stream is a run of
envelopes, the last of which carries its error and trailers. A stream of requests goes to and fro
over HTTP/2; over HTTP/1.1 it is read whole before its call begins.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any

from grpclib.const import Handler
from grpclib.encoding.base import CodecBase

from streamkit.codec import decode, encode, from_json, to_json
from streamkit.config import TransportLimits
from streamkit.doors.exchange import WebExchange, messages_of, metadata_of
from streamkit.doors.transcode import messages_in
from streamkit.errors import DecodeError, InvalidArgumentError, Status
from streamkit.framing import PREFIX, PREFIX_SIZE, prefix
from streamkit.generated.google.rpc import Status as RpcStatus
from streamkit.transport import WebCall
from streamkit.transport.grpc.compression import inflater
from streamkit.transport.grpc.details import DETAILS
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.server.outcome import Outcome

__all__ = ["ConnectStream", "ConnectUnary", "error_json", "http_status", "read_connect"]

_UNARY = {"application/json": True, "application/proto": False}
_STREAM = {"application/connect+json": True, "application/connect+proto": False}
_END = 0x02
_HTTP = {
    Status.CANCELLED: 499,
    Status.UNKNOWN: 500,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
    Status.UNAUTHENTICATED: 401,
}
_MAX_TIMEOUT_DIGITS = 10


def http_status(status: Status) -> int:
    """Return the HTTP status that goes with an error of a unary call."""
    return _HTTP.get(status, 500)


def error_json(outcome: Outcome) -> dict[str, Any]:
    """Return an error as Connect writes it."""
    error: dict[str, Any] = {"code": outcome.status.name.lower()}
    if outcome.status is Status.CANCELLED:
        error["code"] = "canceled"
    if outcome.message:
        error["message"] = outcome.message
    packed = dict(outcome.trailers).get(DETAILS)
    details = [] if packed is None else _details(packed)
    if details:
        error["details"] = details
    return error


def _details(packed: str) -> list[dict[str, str]]:
    try:
        found = decode(RpcStatus, b64decode(packed + "=" * (-len(packed) % 4))).details
    except (DecodeError, ValueError):
        return []
    return [
        {
            "type": one.type_url.rpartition("/")[2],
            "value": b64encode(one.value).rstrip(b"=").decode(),
        }
        for one in found
    ]


async def read_connect(
    call: WebCall,
    method: Handler,
    path: str,
    codec: CodecBase,
    limits: TransportLimits,
    most: int,
) -> ConnectUnary | ConnectStream | None:
    """Read a request, of at most `most` messages; None where its content type is not Connect's for
    this method.

    StreamkitError or ValueError for a request that is none.
    """
    headers = dict(call.headers)
    base, _, parameters = headers.get("content-type", "").lower().partition(";")
    content_type = base.strip()
    if parameters and "charset" in parameters and "utf-8" not in parameters:
        return None
    many = method.cardinality.client_streaming
    streams = many or method.cardinality.server_streaming
    kinds = _STREAM if streams else _UNARY
    if content_type not in kinds:
        return None
    version = headers.get("connect-protocol-version", "1")
    if version != "1":
        raise InvalidArgumentError(f"connect-protocol-version {version[:20]!r} is not 1")
    timeout = _timeout(headers.get("connect-timeout-ms"))
    name = "connect-content-encoding" if streams else "content-encoding"
    inflate = inflater(headers.get(name, ""), limits.max_message)
    kind = ConnectStream if streams else ConnectUnary
    as_json, request_type = kinds[content_type], method.request_type

    def made(messages: Sequence[bytes]) -> ConnectUnary | ConnectStream:
        json_type = content_type if as_json else ""
        return kind(call, path, messages, codec, method.reply_type, json_type, timeout)

    def plain(messages: list[bytes]) -> list[bytes]:
        if not as_json:
            return messages
        return [encode(from_json(request_type, message or b"{}")) for message in messages]

    arriving = call.arriving(inflate) if many else None
    if arriving is not None:
        take = arriving

        async def messages() -> list[bytes]:
            return plain(await take())

        exchange = made(())
        exchange.arriving = messages
        return exchange
    body = await call.read(limits.max_message + PREFIX_SIZE)
    if streams:
        buffer = ReceiveBuffer(limits.max_message)
        buffer.inflate = inflate
        return made(plain(messages_of(buffer, body, many=many, most=most)))
    return made(plain([body if inflate is None else inflate(body)]))


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_TIMEOUT_DIGITS):
        raise InvalidArgumentError("connect-timeout-ms is no number of at most ten digits")
    return int(text) / 1000


class _Connect(WebExchange):
    carrier = "connect"

    def __init__(
        self,
        call: WebCall,
        method: str,
        requests: Sequence[bytes],
        codec: CodecBase,
        reply_type: type[Any],
        json_type: str,
        timeout: float | None,
    ) -> None:
        super().__init__(
            call, method, requests, codec, metadata=metadata_of(call.headers), timeout=timeout
        )
        self._reply_type = reply_type
        self._json = json_type


class ConnectUnary(_Connect):
    """A call with one reply: its message is the response's body."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._leading: Headers = []
        self._reply = b""

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True
        self._leading = metadata

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        self._reply = b"".join(parts)[PREFIX_SIZE:]
        return False

    @property
    def pending_size(self) -> int:
        return len(self._reply) if not self.headers_sent else 0

    def drop_pending(self) -> None:
        """The reply waits for its status: nothing of it is ahead of that."""

    def put_status(self, outcome: Outcome) -> None:
        self.headers_sent = True
        trailers = [(f"trailer-{n}", v) for n, v in outcome.trailers if not n.startswith("grpc-")]
        headers = [*self._leading, *trailers]
        if outcome.status is Status.OK:
            body = self._reply
            if self._json:
                body = to_json(self._reply_type().parse(body)).encode()
            status, kind = 200, self._json or "application/proto"
        else:
            body = json.dumps(error_json(outcome)).encode()
            status, kind = http_status(outcome.status), "application/json"
        self.call.start(status, [("content-type", kind), *headers], length=len(body))
        self.call.write((body,))
        self.call.end()


class ConnectStream(_Connect):
    """A call with a stream of replies, in envelopes."""

    shared: Callable[[Sequence[bytes | memoryview]], bytes] | None = None

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True
        kind = self._json or "application/connect+proto"
        self.call.start(200, [("content-type", kind), *metadata])

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        if self._json:
            assert self.shared is not None
            return self.call.write((self.shared(parts),))
        return self.call.write(parts)

    def put_status(self, outcome: Outcome) -> None:
        if not self.headers_sent:
            self.put_headers([], "")
        end: dict[str, Any] = {}
        if outcome.status is not Status.OK:
            end["error"] = error_json(outcome)
        metadata: dict[str, list[str]] = {}
        for name, value in outcome.trailers:
            if not name.startswith("grpc-"):
                metadata.setdefault(name, []).append(value)
        if metadata:
            end["metadata"] = metadata
        data = json.dumps(end).encode()
        self.call.write((PREFIX.pack(_END, len(data)), data))
        self.call.end()


def envelopes(reply_type: type[Any]) -> Callable[[bytes], bytes]:
    """Return what makes envelopes of JSON from gRPC's frames of messages of a type."""

    def make(frames: bytes) -> bytes:
        parts: list[bytes] = []
        for message in messages_in(reply_type, frames):
            data = to_json(message).encode()
            parts += (prefix(len(data)), data)
        return b"".join(parts)

    return make
