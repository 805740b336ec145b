"""A call in gRPC's own header lists, whatever frames them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from grpclib.encoding.base import CodecBase

from streamkit.transport.grpc.compression import ACCEPTED
from streamkit.transport.grpc.metadata import Headers, encode_message
from streamkit.transport.server.exchange import Body
from streamkit.transport.server.outcome import Outcome
from streamkit.transport.server.request import Request

__all__ = ["GrpcExchange"]


class GrpcExchange(ABC):
    """The part of an Exchange that is the same wherever requests and responses are header lists."""

    carrier = "grpc"

    def __init__(self, request: Request, body: Body, codec: CodecBase) -> None:
        self.method = request.path
        # A request whose headers came before is the same object.
        self.metadata = request.metadata.copy()
        timeout = request.timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.user_agent = request.user_agent
        self.accepts = request.accepts
        self.codec = codec
        self.body = body
        self.headers_sent = False

    def put_headers(self, metadata: Headers, compression: str) -> None:
        """Begin the response."""
        headers = self._first()
        if compression:
            headers.append(("grpc-encoding", compression))
        self._put(headers + metadata, end=False)
        self.headers_sent = True

    def put_status(self, outcome: Outcome) -> None:
        """End the response, with headers that are trailers too when it has not begun."""
        headers: Headers = [] if self.headers_sent else self._first()
        headers.append(("grpc-status", str(outcome.status.value)))
        if outcome.message:
            headers.append(("grpc-message", encode_message(outcome.message)))
        self._put(headers + outcome.trailers, end=True)
        self.headers_sent = True

    def _first(self) -> Headers:
        return [
            (":status", "200"),
            ("content-type", f"application/grpc+{self.codec.__content_subtype__}"),
            ("grpc-accept-encoding", ACCEPTED),
        ]

    @abstractmethod
    def _put(self, headers: Headers, *, end: bool) -> None:
        """Send a header list after the messages that were sent; with `end` it is the last."""
