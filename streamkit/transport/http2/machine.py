"""h2's connection with the rules that a long-lived gRPC peer needs.

h2 keeps the state machines, HPACK and the flow-control arithmetic. This subclass changes what it
does with a misbehaving or a departing peer: a malformed stream ends that stream and not the
connection, GOAWAY is an announcement and not the end, a stream over the limit is refused, unknown
frames are passed over. It also writes DATA and WINDOW_UPDATE frames itself, straight into h2's
output buffer (so their order against h2's own frames stays right), because h2 spends more on one
frame than a small message costs to encode.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, StreamReset
from h2.exceptions import (
    FlowControlError,
    NoSuchStreamError,
    ProtocolError,
)
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamInputs, StreamState
from h2.utilities import SizeLimitDict
from h2.windows import LARGEST_FLOW_CONTROL_WINDOW, WindowManager
from hpack.struct import HeaderTuple
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from streamkit.config import TransportLimits
from streamkit.transport.http2.headers import FRAME, HeaderWays

__all__ = ["Http2"]

_WINDOW_UPDATE = Struct(">HBBBLL")
_ENCODER_TABLE = 4096
_HEADERS_TAKEN, _HEADERS_READ = 8, 64  # times the limit: of anyone's, of those of a server
_OPEN_STATES = (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
_UPDATED = (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE, StreamState.HALF_CLOSED_LOCAL)
_LAST_STREAM = 2**31 - 1
_LATE_FRAMES = 8  # that say nothing, of one stream that is over: headers, trailers, an end, resets
_EAGER = 10  # times the number of streams, refused while the peer cannot know better

_Answer = tuple[list[Frame], list[Event]]


class Http2(HeaderWays):
    """One connection's protocol state; does no I/O, reads and fills `_data_to_send`."""

    MAX_CLOSED_STREAMS = 1024  # how a stream ended matters only while its frames are in flight

    def __init__(self, *, client: bool, limits: TransportLimits) -> None:
        super().__init__(
            H2Configuration(
                client_side=client,
                header_encoding="latin-1",  # any byte is a character; the values are checked later
                # A malformed header must end its stream; h2's own checks end the connection.
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        initial = {
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_FRAME_SIZE: limits.max_frame,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_list,
            SettingCodes.ENABLE_PUSH: 0,
        }
        if not client:
            initial[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.max_streams
        # As initial values they hold before the peer's acknowledgement: lenient, never strict.
        self.local_settings = Settings(client=client, initial_values=initial)
        self.max_inbound_frame_size = limits.max_frame
        self.header_limit = (_HEADERS_READ if client else _HEADERS_TAKEN) * limits.max_header_list
        """Bytes of a header list, or of its block, that are read at all. Below this an oversized
        one costs its own call; above, the connection, since both sides must read every block."""
        self.decoder.max_header_list_size = self.header_limit
        self.limits = limits
        self.max_active = limits.max_streams
        self.make_room: Callable[[], None] = lambda: None
        """Clears away calls that are over; given by the role."""
        self.in_use: Callable[[], int] = lambda: 0
        """How many streams are open as far as the peer knows; given by the processor."""
        # Streams that are gone: the bytes and the frames without any that may be on their way.
        self._late: SizeLimitDict = SizeLimitDict(size_limit=self.MAX_CLOSED_STREAMS)
        self._answers_due = 1  # to pings, and to our settings
        self._eager = _EAGER * limits.max_streams
        self._greeted = False  # the peer knows our settings
        self._intruded = False  # the latest stream was opened by a peer that knew of no place

    def start(self) -> None:
        """Put the preface, the settings and the connection's window into the output."""
        self.initiate_connection()
        initial = self._inbound_flow_control_window_manager.max_window_size
        if self.limits.connection_window > initial:
            self.increment_flow_control_window(self.limits.connection_window - initial)

    # Streams ----------------------------------------------------------------------------------

    def forget(self, stream_id: int) -> None:
        """Drop a finished stream; one that is still open is not touched."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            del self.streams[stream_id]
            _keep(self._closed_streams, stream_id, stream.closed_by)
            self._outlived(stream)

    def _outlived(self, stream: H2Stream) -> list[int]:
        """What may still be on its way for a stream that is over."""
        window = stream._inbound_window_manager.current_window_size
        late: list[int] | None = self._late.get(stream.stream_id)
        if late is None:
            late = [window, _LATE_FRAMES]
            _keep(self._late, stream.stream_id, late)
        else:
            late[0] = window  # and the frames that were there meanwhile stay counted
        return late

    def _open_streams(self, remainder: int) -> int:
        # h2 walks over all streams for every new one; finished ones are forgotten here at once.
        return len(self.streams)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Send RST_STREAM unless the stream is over."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.closed and self.usable:
            self.reset_stream(stream_id, error_code=code)

    @property
    def usable(self) -> bool:
        return self.state_machine.state is not ConnectionState.CLOSED

    def excuse(self, stream_id: int) -> bool:
        """Whether a frame that said nothing may have been on its way when its stream ended here,
        or when the peer could not know that there is no place for it."""
        if self._intruded:
            self._intruded = False
            return False
        late = self._late.get(stream_id)
        if late is None:
            stream = self.streams.get(stream_id)
            if stream is None or not stream.closed:
                return False
            late = self._outlived(stream)  # its user has yet to let go of it
        if not late[1]:
            return False
        late[1] -= 1
        return True

    def ping(self, opaque_data: bytes | str) -> None:
        """Ask for a sign of life."""
        super().ping(opaque_data)
        self._answers_due += 1

    def answered(self, *, settings: bool = False) -> bool:
        """The peer answered a ping or the settings; False: nothing had been asked."""
        self._greeted = self._greeted or settings
        if not self._answers_due:
            return False
        self._answers_due -= 1
        return True

    # Sending ----------------------------------------------------------------------------------

    def sendable(self, stream: H2Stream) -> int:
        """Bytes that flow control lets go out on the stream now."""
        window = self.outbound_flow_control_window
        own = stream.outbound_flow_control_window
        return own if own < window else window

    def put_data(
        self, stream: H2Stream, data: bytes | memoryview, size: int, *, end: bool = False
    ) -> None:
        """Write one DATA frame of at most `sendable` bytes into the output.

        `end` sets END_STREAM.
        """
        if end:
            machine = stream.state_machine
            if machine.state is StreamState.OPEN:  # all that h2 does then, which takes it longer
                machine.state = StreamState.HALF_CLOSED_LOCAL
            else:
                machine.process_input(StreamInputs.SEND_END_STREAM)
        out = self._data_to_send
        out += FRAME.pack(size >> 8, size & 0xFF, 0, end, stream.stream_id)
        out += data
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size

    def data_head(self, stream: H2Stream, size: int) -> bytes:
        """Account for a DATA frame whose bytes are written past the output; return its head."""
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        return FRAME.pack(size >> 8, size & 0xFF, 0, 0, stream.stream_id)

    def put_window_update(self, stream_id: int, increment: int) -> None:
        self._data_to_send += _WINDOW_UPDATE.pack(0, 4, 8, 0, stream_id, increment)

    def put_goaway(self, last_stream_id: int, code: ErrorCodes, note: bytes = b"") -> None:
        """Announce the end; unlike h2's own way this leaves the connection working."""
        frame = GoAwayFrame(0)
        frame.last_stream_id = last_stream_id
        frame.error_code = code
        frame.additional_data = note
        self._data_to_send += frame.serialize()

    def take_output(self) -> bytearray:
        """Everything that waits to be written; the caller owns it."""
        data = self._data_to_send
        if data:
            self._data_to_send = bytearray()
        return data

    # Receiving: the short way for DATA --------------------------------------------------------

    def open_data(self, stream: H2Stream, size: int) -> bool:
        """Account for an unpadded DATA frame of an open stream; False: take h2's way instead."""
        machine = stream.state_machine
        state = machine.state
        if (
            (state is not StreamState.OPEN and state is not StreamState.HALF_CLOSED_LOCAL)
            or not machine.headers_received
            or self.state_machine.state not in _OPEN_STATES
        ):
            return False
        window = self._inbound_flow_control_window_manager
        own = stream._inbound_window_manager
        if size > window.current_window_size or size > own.current_window_size:
            raise FlowControlError("peer sent more than its window")
        window.current_window_size -= size
        own.current_window_size -= size
        return True

    def is_over(self, stream_id: int) -> bool:
        """Whether the stream was open here once and has ended by a reset or by our end."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream.closed
        if stream_id in self._closed_streams:
            return True
        outbound = self._stream_id_is_outbound(stream_id)
        newest = self.highest_outbound_stream_id if outbound else self.highest_inbound_stream_id
        return 0 < stream_id <= newest

    def late_data(self, stream_id: int, size: int) -> bool:
        """Account for DATA of a stream that is gone: its bytes return to the connection. False
        when it says nothing and cannot have been on its way when the stream ended.

        Raises FlowControlError for more than the stream or the connection may carry.
        """
        window = self._inbound_flow_control_window_manager
        if size > window.current_window_size:
            raise FlowControlError("peer sent more than its window")
        excused = size > 0
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._take_late(stream._inbound_window_manager.current_window_size, size)
            stream._inbound_window_manager.current_window_size -= size
        else:
            late = self._late.get(stream_id)
            if late is None:
                excused = False  # forgotten: so many have ended since
            else:
                self._take_late(late[0], size)
                late[0] -= size
        window.current_window_size -= size
        self.give_back(size)
        return excused or self.excuse(stream_id)

    @staticmethod
    def _take_late(window: int, size: int) -> None:
        if size > window:
            raise FlowControlError("peer sent more than its window")

    def opened(self, stream: H2Stream | None, increment: int) -> bool:
        """Account for a WINDOW_UPDATE of an open stream, or of the connection (None); False: take
        h2's way instead."""
        if not increment or self.state_machine.state not in _OPEN_STATES:
            return False
        if stream is None:
            window = self.outbound_flow_control_window + increment
            if window > LARGEST_FLOW_CONTROL_WINDOW:
                return False
            self.outbound_flow_control_window = window
            return True
        window = stream.outbound_flow_control_window + increment
        if window > LARGEST_FLOW_CONTROL_WINDOW or stream.state_machine.state not in _UPDATED:
            return False
        stream.outbound_flow_control_window = window
        return True

    def end_data(self, stream: H2Stream) -> None:
        """END_STREAM of a frame that `open_data` accepted."""
        machine = stream.state_machine
        if machine.state is StreamState.OPEN:  # all that h2 does then, which takes it longer
            machine.state = StreamState.HALF_CLOSED_REMOTE
        else:
            machine.process_input(StreamInputs.RECV_END_STREAM)

    def give_back(self, size: int) -> None:
        """Let the peer send `size` more bytes on the connection."""
        increment = _opened(self._inbound_flow_control_window_manager, size)
        if increment:
            self.put_window_update(0, increment)

    def give_back_stream(self, stream: H2Stream, size: int) -> None:
        """Let the peer send `size` more bytes on the stream, while it can send any."""
        state = stream.state_machine.state
        if state is StreamState.OPEN or state is StreamState.HALF_CLOSED_LOCAL:
            increment = _opened(stream._inbound_window_manager, size)
            if increment:
                self.put_window_update(stream.stream_id, increment)

    def widen(self, stream_id: int, window: int) -> None:
        """Let the peer have up to `window` bytes of one stream on the way, if that is more."""
        now = self.streams[stream_id]._inbound_window_manager.max_window_size
        if window > now:
            self.increment_flow_control_window(window - now, stream_id)

    # Receiving: what h2 does differently here ------------------------------------------------

    def _receive_headers_frame(self, frame: HeadersFrame) -> _Answer:
        fields = self.read(frame.data) if self._decoded is None else self._decoded
        headers = [
            HeaderTuple(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields
        ]
        stream_id = frame.stream_id
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = self.streams.get(stream_id)
        known = stream is not None
        if stream is None:
            if self._is_late(stream_id):
                return [], []
            if self.config.client_side:
                raise ProtocolError("a server opened a stream")
            if self.active >= self.max_active:
                self.make_room()
            if stream_id >= self.refuse_from or self.active >= self.max_active:
                return self._refuse(stream_id)
            stream = self._begin_new_stream(
                stream_id, AllowedStreamIDs(not self.config.client_side)
            )
        try:
            answer = stream.receive_headers(
                headers, "END_STREAM" in frame.flags, self.config.header_encoding
            )
        except ProtocolError as error:
            code = error.error_code or ErrorCodes.PROTOCOL_ERROR
            return self._stream_error(stream, known, code)
        # gRPC messages carry their own length; h2 would end the connection over a wrong one.
        stream._expected_content_length = None
        return answer

    def _receive_data_frame(self, frame: DataFrame) -> _Answer:
        try:
            return super()._receive_data_frame(frame)
        except (FlowControlError, NoSuchStreamError):
            raise
        except ProtocolError as error:
            stream = self.streams.get(frame.stream_id)
            if stream is None:
                raise
            self.give_back(frame.flow_controlled_length)
            return self._stream_error(stream, True, error.error_code or ErrorCodes.PROTOCOL_ERROR)

    def _refuse(self, stream_id: int) -> _Answer:
        """There is no place for a stream. That is nobody's fault before the peer knows how many
        there are, or while streams that it has left are still being cleared away."""
        self.highest_inbound_stream_id = stream_id
        self._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
        self._late[stream_id] = [self.limits.stream_window, _LATE_FRAMES]
        early = not self._greeted or stream_id >= self.refuse_from
        if early and self._eager:
            self._eager -= 1
        elif early or self.in_use() >= self.limits.max_streams:
            self._intruded = True
        return [_rst(stream_id, ErrorCodes.REFUSED_STREAM)], []

    def _is_late(self, stream_id: int) -> bool:
        """Headers of a stream that ended here while they were on their way."""
        outbound = self._stream_id_is_outbound(stream_id)
        if outbound:
            return stream_id <= self.highest_outbound_stream_id
        return stream_id in self._closed_streams and not self._ended_by_peer(stream_id)

    def _ended_by_peer(self, stream_id: int) -> bool:
        return self._closed_streams[stream_id] is StreamClosedBy.RECV_END_STREAM

    def _stream_error(self, stream: H2Stream, known: bool, code: ErrorCodes) -> _Answer:
        """End one stream for what its peer sent; the connection goes on."""
        stream_id = stream.stream_id
        stream.state_machine.state = StreamState.CLOSED
        stream.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
        events: list[Event] = [
            StreamReset(stream_id=stream_id, error_code=code, remote_reset=False)
        ]
        if not known:
            self.forget(stream_id)
        return [_rst(stream_id, code)], events

    def _receive_settings_frame(self, frame: SettingsFrame) -> _Answer:
        table = frame.settings.get(SettingCodes.HEADER_TABLE_SIZE)
        if table is not None and table > _ENCODER_TABLE:
            # The peer may allow more; what our encoder keeps for it is our choice.
            frame.settings[SettingCodes.HEADER_TABLE_SIZE] = _ENCODER_TABLE
        return super()._receive_settings_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> _Answer:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> _Answer:
        return [], []

    def _receive_alt_svc_frame(self, frame: AltSvcFrame) -> _Answer:
        return [], []

    def _receive_unknown_frame(self, frame: ExtensionFrame) -> _Answer:
        return [], []

    def receive_frame(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Process one whole frame (or the client's preface) that is not DATA on the short way."""
        return self.receive_data(data)


def _keep(ended: dict[int, Any], stream_id: int, what: Any) -> None:
    """Note the end of a stream, as h2's own way does with three calls more."""
    assert isinstance(ended, OrderedDict)
    OrderedDict.__setitem__(ended, stream_id, what)
    if len(ended) > Http2.MAX_CLOSED_STREAMS:
        ended.popitem(last=False)


def _opened(manager: WindowManager, size: int) -> int:
    """How far the processing of `size` bytes opens a window: half of it at a time.

    h2's own rule opens a window that is used up by any kilobyte, and the peer answers with a frame
    of a kilobyte. Nothing is stuck without that: a reader that waits has processed everything.
    """
    processed: int = manager._bytes_processed + size
    if 2 * processed < manager.max_window_size:
        manager._bytes_processed = processed
        return 0
    increment: int = min(processed, manager.max_window_size - manager.current_window_size)
    manager._bytes_processed = 0
    manager.current_window_size += increment
    return increment


def _rst(stream_id: int, code: ErrorCodes) -> RstStreamFrame:
    frame = RstStreamFrame(stream_id)
    frame.error_code = code
    return frame
