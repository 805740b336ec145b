"""gRPC over HTTP/2: the calls of one server connection, each of which is an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from grpclib.encoding.base import CodecBase
from grpclib.protocol import AbstractHandler
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.http2.blocks import Fields
from streamkit.transport.http2.stream import WireStream
from streamkit.transport.server.exchange import Exchange
from streamkit.transport.server.grpc_exchange import GrpcExchange
from streamkit.transport.server.outcome import OK, Outcome
from streamkit.transport.server.request import Refusal, Request, read_request, read_web
from streamkit.transport.server.serving import Service
from streamkit.transport.server.web import Door, Http2Call, Visit, is_grpc

__all__ = ["Calls"]


_ENDS_WELL = [("grpc-status", "0")]


class Calls(AbstractHandler):
    """Accepts the requests of one connection; what is no gRPC goes to the door, if there is one."""

    def __init__(self, service: Service, door: Door | None = None) -> None:
        self._service = service
        self._door = door
        self._calls: dict[WireStream, Visit] = {}
        self.closing = False

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of all calls that are not over."""
        return [call.task for call in self._calls.values() if call.task is not None]

    def settle(self) -> None:
        """Give the places of calls free that are over as their callers know, but for their task."""
        for call in list(self._calls.values()):
            call.settle()

    def accept(
        self,
        stream: Any,
        headers: Headers,
        release_stream: Callable[[], None],
    ) -> None:
        """A request arrived: answer it at once or start its call."""
        service = self._service
        asked = headers.made.get("request") if isinstance(headers, Fields) else None
        if asked is None:
            asked = read_request(headers, service.codec.__content_subtype__, service.limits)
            if isinstance(asked, Refusal):
                # Only now: a call of gRPC must cost no more where there is a door.
                if self._door is not None and not is_grpc(headers):
                    self._visit(self._door, stream, headers, release_stream)
                    return
                self._refuse(stream, asked, release_stream)
                return
            if isinstance(headers, Fields) and headers.kept:
                headers.made["request"] = asked

        def done() -> None:
            self._calls.pop(stream, None)
            stream.connection.h2.active = len(self._calls)
            release_stream()

        exchange: Exchange = Http2Exchange(stream, asked, service.codec)
        call = service.start(exchange, done)
        if call is not None:
            self._calls[stream] = call
            stream.connection.h2.active = len(self._calls)

    def _visit(
        self, door: Door, stream: WireStream, headers: Headers, release: Callable[[], None]
    ) -> None:
        refusal = read_web(headers, self._service.limits)
        if refusal is not None:
            self._refuse(stream, refusal, release)
            return

        def done() -> None:
            self._calls.pop(stream, None)
            stream.connection.h2.active = len(self._calls)
            release()

        self._calls[stream] = door.accept(Http2Call(stream, headers), done)
        stream.connection.h2.active = len(self._calls)

    def _refuse(self, stream: WireStream, refusal: Refusal, release: Callable[[], None]) -> None:
        if refusal.headers is None:
            stream.reset_nowait(ErrorCodes.PROTOCOL_ERROR)
            release()
            stream.connection.count_reset()
        else:
            stream.put_headers(refusal.headers, end_stream=True)
            release()

    def cancel(self, stream: Any) -> None:
        """The peer reset the stream."""
        call = self._calls.get(stream)
        if call is not None:
            call.end(None)

    def close(self) -> None:
        """The connection is lost."""
        self.closing = True
        for call in list(self._calls.values()):
            call.end(None)

    def drain(self, *, everything: bool) -> None:
        """Tell the callers of streaming replies to come back elsewhere; with `everything` also
        those that wait for one reply, or for the end of a stream that has one."""
        for call in list(self._calls.values()):
            call.drain(everything=everything)


class Http2Exchange(GrpcExchange):
    """A call on an HTTP/2 stream, which is its body."""

    def __init__(self, stream: WireStream, request: Request, codec: CodecBase) -> None:
        super().__init__(request, stream, codec)
        self._stream = stream
        stream.messages_in.inflate = request.inflate

    @property
    def peer(self) -> str:
        return self._stream.connection.peer_name

    @property
    def peer_certificate(self) -> dict[str, object] | None:
        return self._stream.connection.peer_certificate

    @property
    def peer_uid(self) -> int | None:
        return self._stream.connection.peer_uid

    @property
    def lost(self) -> bool:
        return self._stream.lost is not None

    @property
    def received_all(self) -> bool:
        return self._stream.messages_in.eof

    @property
    def unread(self) -> int:
        return self._stream.messages_in.size

    def put_headers(self, metadata: Headers, compression: str) -> None:
        if metadata or compression:
            super().put_headers(metadata, compression)
        else:
            self._stream.put_headers(self._first(), key=self.codec.__content_subtype__)
            self.headers_sent = True

    def put_status(self, outcome: Outcome) -> None:
        self._stream.drop_pending()
        try:
            if outcome is OK and self.headers_sent:
                self._stream.put_headers(_ENDS_WELL, end_stream=True, key="OK")
            else:
                super().put_status(outcome)
        except ProtocolError:
            # h2 refuses the headers, or the stream: no silence, but a reset.
            self._stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)

    def reset(self) -> None:
        self._stream.reset_nowait(ErrorCodes.CANCEL)

    def _put(self, headers: Headers, *, end: bool) -> None:
        self._stream.put_headers(headers, end_stream=end)
