"""A request on an HTTP/2 stream."""

from __future__ import annotations

from collections.abc import Awaitable

from h2.connection import AllowedStreamIDs

from streamkit.transport.client.request import ClientStream
from streamkit.transport.grpc.in_place import InPlaceBuffer
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.http2.blocks import CallHeaders
from streamkit.transport.http2.endings import StreamLost
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.http2.stream import WireStream

__all__ = ["WireAttempt"]

LAST_STREAM_ID = 2**30
"""A connection that has used this many is replaced."""
IN_PLACE_WINDOW = 4 * 1024 * 1024
"""Of streams that are received in place: their messages are large."""


class WireAttempt(WireStream):
    """The HTTP/2 stream that a request is on; reports to its `ClientStream`."""

    def __init__(self, owner: ClientStream, protocol: WireProtocol) -> None:
        super().__init__(protocol.connection)
        self._owner = owner
        self.window = 0
        """What may be on the way, if it is to be more than the settings say."""
        self._processor = protocol.processor
        if owner.in_place:
            self.messages_in = InPlaceBuffer(owner.max_message)
            self.window = IN_PLACE_WINDOW
            protocol.receive_in_place()

    def open(self, headers: Headers, end: bool) -> None:
        """Send the request headers; they leave together with what is put in this turn."""
        connection = self.connection
        stream_id: int = connection.h2.get_next_available_stream_id()
        if stream_id >= LAST_STREAM_ID:
            connection.draining = True
        # Made first: for a stream that it knows, h2 does not check the limit that the pool keeps.
        if not isinstance(headers, CallHeaders) or not connection.h2.open_request(
            stream_id, headers, end=end
        ):
            connection.h2._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
            connection.h2.send_headers(stream_id, headers, end_stream=end)
        self.begin(stream_id)
        if self.window:
            connection.h2.widen(stream_id, self.window)
        self._processor.streams[stream_id] = self
        connection.schedule()

    def leave(self) -> None:
        """End the attempt: what is open of it is reset, its place is free. Idempotent."""
        self._processor.release(self)

    def changed(self) -> Awaitable[None]:
        """Wait for messages, or until the stream is lost."""
        return self._changed()

    async def sent_some(self) -> None:
        """Wait for the peer to take some of what is pending; how long is the deadline's matter."""
        waiter = self.connection.loop.create_future()
        self._senders.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._senders:
                self._senders.remove(waiter)

    def take(self) -> list[bytes]:
        """The whole messages that are here."""
        messages, freed = self.messages_in.take()
        self._free(freed)
        return messages

    def got_headers(self, headers: Headers) -> None:
        self._owner.on_headers(headers)
        super().got_headers(headers)
        self._owner.wake()

    def got_trailers(self, trailers: Headers) -> None:
        self._owner.on_trailers(trailers)
        super().got_trailers(trailers)

    def __ended__(self) -> None:
        self._owner.on_ended()
        super().__ended__()
        self.drop_pending()
        self._wake_sender()
        self._processor.retire(self)

    def lose(self, error: StreamLost) -> None:
        if self.lost is None:
            super().lose(error)
            if not self.connection.dead:
                self.connection.discarded(self.settle())
                self._processor.retire(self)
            self._owner.on_lost(error)
