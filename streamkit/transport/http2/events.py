"""What received events do to the streams of a connection, and what they cost the peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from grpclib.protocol import AbstractHandler, EventsProcessor, Stream
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.settings import SettingCodes

from streamkit.transport.http2.connection import WireConnection
from streamkit.transport.http2.endings import StreamLost, TooBusyError
from streamkit.transport.http2.stream import WireStream

__all__ = ["WireProcessor"]

_BRIEF = 0.02  # seconds that a stream lives at least if it was not opened to be reset


class WireProcessor(EventsProcessor):
    """Streams by id; every event of h2 has its place here or is passed over."""

    connection: WireConnection
    streams: dict[int, WireStream]  # type: ignore[assignment]  # narrower than h2's

    def __init__(self, handler: AbstractHandler, connection: WireConnection) -> None:
        # Not super().__init__(): the table below serves all connections.
        self.handler = handler
        self.connection = connection
        self.streams = {}
        connection.h2.in_use = self._in_use
        self.on_terminated: Callable[[ConnectionTerminated], None] | None = None
        """Called when the peer's GOAWAY was dealt with."""
        self.on_pong: Callable[[], None] | None = None
        """Called when the peer has answered a PING, and so has read what was sent before."""

    def register(self, stream: Stream) -> Callable[[], None]:
        assert isinstance(stream, WireStream)
        assert stream.id is not None
        self.streams[stream.id] = stream

        def release() -> None:
            self.release(stream)

        return release

    def _in_use(self) -> int:
        return sum(1 for stream in self.streams.values() if stream.lost is None)

    def release(self, stream: WireStream) -> None:
        """The stream's user is done with it; whatever is still open is reset. Idempotent."""
        assert stream.id is not None
        connection = self.connection
        listed = self.streams.pop(stream.id, None) is not None
        if not connection.dead:
            if listed:
                # A server that has answered only stops the rest of the request.
                answered = not connection.h2.client and stream.ended_here
                gentle = answered or stream.messages_in.eof
                code = ErrorCodes.NO_ERROR if gentle else ErrorCodes.CANCEL
                connection.h2.reset(stream.id, code)
            connection.discarded(stream.discard())
        if listed:
            stream.lose(StreamLost("the stream is over", ErrorCodes.CANCEL))
            self._vacate(stream)

    def retire(self, stream: WireStream) -> None:
        """The server has ended the stream, whose user may be a while: it takes no place any more,
        and what it has received can still be read."""
        if stream.id is None or self.streams.pop(stream.id, None) is None:
            return
        if stream.lost is None:
            self.connection.h2.reset(stream.id, ErrorCodes.NO_ERROR)
        self._vacate(stream)

    def _vacate(self, stream: WireStream) -> None:
        """A stream that was taken off the list frees its place."""
        assert stream.id is not None
        connection = self.connection
        if stream.answered:
            connection.budgets.resets.give(1.0)
        connection.drop(stream)
        if not connection.dead:
            connection.h2.forget(stream.id)
            if connection.h2._data_to_send:
                connection.schedule()
        connection.room()
        if connection.draining and not self.streams and connection.on_idle is not None:
            connection.on_idle()

    def close(self, reason: str = "Connection closed") -> None:
        """The connection is over: so are all its streams."""
        self.connection.close()
        self.handler.close()
        error = StreamLost(reason)
        for stream in list(self.streams.values()):
            stream.lose(error)
        self.connection.room()

    def process(self, event: Event) -> None:
        action = _ACTIONS.get(event.__class__)
        if action is not None:
            action(self, event)

    def process_all(self, events: list[Event]) -> None:
        """Process the events of one frame."""
        for event in events:
            self.process(event)

    def note_empty(self) -> None:
        """A frame that carries nothing."""
        budgets = self.connection.budgets
        if not budgets.spend(budgets.barren):
            raise TooBusyError("too many empty frames")

    def block(self, stream_id: int, block: bytes, end: bool) -> None:
        """A whole header block, by the short way where there is one."""
        connection = self.connection
        h2 = connection.h2
        fields = h2.read(block)
        if h2.client:
            stream = self.streams.get(stream_id)
            wire = None if stream is None else stream.h2
            if stream is not None and wire is not None:
                trailers = wire.state_machine.headers_received
                if h2.response(wire, fields, end=end):
                    if trailers:
                        stream.got_trailers(fields)
                    else:
                        stream.got_headers(fields)
                    if end:
                        if stream_id in self.streams:  # the headers may have ended the call
                            stream.__ended__()
                        connection.streams_succeeded += 1
                    return
        elif h2.request(stream_id, fields, end=end):
            stream = WireStream(connection, stream_id=stream_id)
            self.handler.accept(stream, fields, self.register(stream))
            if end:
                if stream_id in self.streams:  # it may have been refused
                    stream.__ended__()
                connection.streams_succeeded += 1
            return
        events = h2.receive_fields(stream_id, fields, end=end)
        if events:
            self.process_all(events)
        elif not h2.excuse(stream_id):
            self.note_empty()

    def _requested(self, event: RequestReceived) -> None:
        stream = WireStream(self.connection, stream_id=event.stream_id)
        release = self.register(stream)
        headers: Any = event.headers
        self.handler.accept(stream, headers, release)

    def _responded(self, event: ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            headers: Any = event.headers
            stream.got_headers(headers)

    def _trailed(self, event: TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            headers: Any = event.headers
            stream.got_trailers(headers)

    def _data(self, event: DataReceived) -> None:
        """DATA that did not take the short way: padded, or with a content-length."""
        size = len(event.data)
        padding = event.flow_controlled_length - size
        connection = self.connection
        stream = self.streams.get(event.stream_id)
        if stream is None:
            connection.h2.give_back(event.flow_controlled_length)
            return
        if padding:
            connection.h2.give_back(padding)
            if stream.h2 is not None:
                connection.h2.give_back_stream(stream.h2, padding)
        if size:
            stream.feed(event.data)
        elif event.stream_ended is None:
            self.note_empty()

    def _ended(self, event: StreamEnded) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.__ended__()
        self.connection.streams_succeeded += 1

    def _reset(self, event: StreamReset) -> None:
        """The peer reset a stream, or made us reset it."""
        stream = self.streams.get(event.stream_id)
        code = event.error_code
        if stream is not None:
            how = "by the peer" if event.remote_reset else "for a violation of the protocol"
            stream.lose(StreamLost(f"the stream was reset {how}", code))
            self.handler.cancel(stream)
        connection = self.connection
        if event.remote_reset and (connection.h2.client or self._was_used(stream)):
            connection.streams_failed += 1
        else:
            connection.count_reset()

    def _was_used(self, stream: WireStream | None) -> bool:
        """Whether a stream was opened for something else than to be reset."""
        if stream is None or stream.answered:
            return True
        assert stream.created is not None
        return self.connection.last_received - stream.created >= _BRIEF

    def _window(self, event: WindowUpdated) -> None:
        self.opened(self.streams.get(event.stream_id) if event.stream_id else None)

    def opened(self, stream: WireStream | None) -> None:
        """A window was opened: of a stream, or of the connection or a stream that is over."""
        connection = self.connection
        if not connection.budgets.update():
            raise TooBusyError("too many window updates")
        connection.unblock(stream)

    def _configured(self, event: RemoteSettingsChanged) -> None:
        budgets = self.connection.budgets
        if not budgets.spend(budgets.settings):
            raise TooBusyError("too many settings")
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            self.connection.unblock(None)
        self.connection.room()

    def _pinged(self, event: PingReceived) -> None:
        budgets = self.connection.budgets
        if not budgets.spend(budgets.pings):
            raise TooBusyError("too_many_pings")

    def _acknowledged(self, event: SettingsAcknowledged) -> None:
        if not self.connection.h2.answered(settings=True):
            self.note_empty()

    def _ponged(self, event: PingAckReceived) -> None:
        if not self.connection.h2.answered():
            self.note_empty()
        if self.on_pong is not None:
            self.on_pong()

    def _terminated(self, event: ConnectionTerminated) -> None:
        """The peer takes no more calls; those that it has seen go on."""
        self.note_empty()
        connection = self.connection
        connection.draining = True
        last = event.last_stream_id or 0
        if connection.h2.client:
            refused = StreamLost("refused by a server that goes away", refused=True)
            for stream_id, stream in list(self.streams.items()):
                if stream_id > last:
                    stream.lose(refused)
        connection.room()
        if self.on_terminated is not None:
            self.on_terminated(event)
        if not self.streams and connection.on_idle is not None:
            connection.on_idle()


class _Action(Protocol):
    def __call__(self, processor: WireProcessor, event: Any, /) -> None: ...


_ACTIONS: dict[type[Event], _Action] = {
    RequestReceived: WireProcessor._requested,
    ResponseReceived: WireProcessor._responded,
    TrailersReceived: WireProcessor._trailed,
    DataReceived: WireProcessor._data,
    StreamEnded: WireProcessor._ended,
    StreamReset: WireProcessor._reset,
    WindowUpdated: WireProcessor._window,
    RemoteSettingsChanged: WireProcessor._configured,
    PingReceived: WireProcessor._pinged,
    PingAckReceived: WireProcessor._ponged,
    SettingsAcknowledged: WireProcessor._acknowledged,
    ConnectionTerminated: WireProcessor._terminated,
}
