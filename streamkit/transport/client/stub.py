"""grpclib's client stream on top of ours: what generated stubs and grpclib's methods drive."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

import grpclib.client
from grpclib.const import Status
from grpclib.exceptions import ProtocolError
from multidict import MultiDict

from streamkit.errors import InternalError
from streamkit.transport.client.call import ClientCall
from streamkit.transport.grpc.metadata import Metadata

__all__ = ["StubStream"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class StubStream(grpclib.client.Stream[Request, Reply]):
    """The methods of `grpclib.client.Stream`, with the behaviour of `ClientCall`.

    Failures are StreamkitErrors, which have the `status` and `message` of a GRPCError but are none.
    Leaving the context of a response stream that was not read to its end cancels the call, where
    grpclib would wait for the server to finish.
    """

    _call: ClientCall[Request, Reply] | None = None
    _ended = False

    def __init__(
        self,
        new_call: Callable[..., ClientCall[Request, Reply]],
        peer: Callable[[], Any],
        *args: Any,
        **settings: Any,
    ) -> None:
        """`new_call` and `peer` are a channel's; the rest is what grpclib's stream wants after its
        channel."""
        super().__init__(cast(Any, None), *args, **settings)
        self._new_call = new_call
        self._peer = peer

    async def send_request(self, *, end: bool = False) -> None:
        if self._call is not None:
            raise ProtocolError("Request is already sent")
        if end and not self._cardinality.client_streaming:
            raise ProtocolError("Unary request requires a message to be sent before its end")
        await self._open(None)
        if end:
            await self.end()

    async def send_message(self, message: Request, *, end: bool = False) -> None:
        if self._ended:
            raise ProtocolError("Stream is ended")
        last = end or not self._cardinality.client_streaming
        (message,) = await self._dispatch.send_message(message)
        if self._call is None and last:
            self._ended = True
            await self._open(message)  # headers, message and end leave together
        else:
            if self._call is None:
                await self._open(None)
            await self._opened().send(message)
            if last:
                await self.end()
        self._messages_sent += 1

    async def end(self) -> None:
        if self._ended:
            if not self._cardinality.client_streaming:
                return  # its one message has ended it
            raise ProtocolError("Stream was already ended")
        self._ended = True
        await self._opened().end()

    async def recv_initial_metadata(self) -> None:
        if self._recv_initial_metadata_done:
            raise ProtocolError("Initial metadata was already received")
        call = self._opened()
        found = await call.initial_metadata()
        self._recv_initial_metadata_done = True
        (self.initial_metadata,) = await self._dispatch.recv_initial_metadata(cast(Any, found))

    async def recv_message(self) -> Reply | None:
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        message = await anext(self._opened(), None)
        if message is not None:
            (message,) = await self._dispatch.recv_message(message)
            self._messages_received += 1
        elif not self._cardinality.server_streaming and not self._messages_received:
            raise InternalError("the server ended the call without a reply")
        else:
            await self._read_trailers()
        return message

    async def recv_trailing_metadata(self) -> None:
        if self._recv_trailing_metadata_done:
            raise ProtocolError("Trailing metadata was already received")
        call = self._opened()
        while await call.receive():
            continue  # what the caller did not want to read
        await self._read_trailers()

    async def cancel(self) -> None:
        if self._cancel_done:
            raise ProtocolError("Stream was already cancelled")
        self._opened().cancel()
        self._cancel_done = True

    async def __aenter__(self) -> StubStream[Request, Reply]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        call = self._call
        if call is None:
            return
        try:
            waits = not self._cardinality.server_streaming and not self._cancel_done
            if error is None and waits and not self._recv_trailing_metadata_done:
                # The one reply may be here, and the status that follows it an error.
                await self.recv_trailing_metadata()
        except BaseException as late:
            error = late
            raise
        finally:
            await call.leave(error)

    async def _open(self, message: Request | None) -> None:
        metadata: Metadata = MultiDict(cast(Any, self._metadata))
        (metadata,) = await self._dispatch.send_request(
            cast(Any, metadata),
            method_name=self._method_name,
            deadline=self._deadline,
            content_type="application/grpc",
        )
        call = self._new_call(
            self._method_name,
            self._send_type,
            self._recv_type,
            request=message,
            timeout=None if self._deadline is None else self._deadline.time_remaining(),
            metadata=metadata,
        )
        self._call = call
        try:
            await call.open()
        except BaseException:
            self._call = None
            raise
        self.peer = self._peer()

    def _opened(self) -> ClientCall[Request, Reply]:
        if self._call is None:
            raise ProtocolError("Request was not sent yet")
        return self._call

    async def _read_trailers(self) -> None:
        if self._recv_trailing_metadata_done:
            return
        self._recv_trailing_metadata_done = True
        found = self._opened().trailing_metadata
        (self.trailing_metadata,) = await self._dispatch.recv_trailing_metadata(
            cast(Any, MultiDict() if found is None else found),
            status=Status.OK,
            status_message=None,
            status_details=None,
        )
