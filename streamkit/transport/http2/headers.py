"""The short way of header blocks past h2, which spends more on one than a small call costs.

Only what is in order goes this way: whatever h2 would refuse, or treat in a way of its own, is left
to h2, with the block decoded already, since no block may be decoded twice. The states of a stream
stay h2's own, so that each frame may come either way.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hyperframe.frame import HeadersFrame

from streamkit.transport.http2.blocks import BlockReader, BlockWriter, CallHeaders, Fields

__all__ = ["FRAME", "HeaderWays"]

FRAME = Struct(">HBBBL")
"""A frame's head: length (high 16 bits, low 8 bits), type, flags, stream."""
_WINDOW, _STREAMS = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_CONCURRENT_STREAMS
_HEADERS, _CONTINUATION = 1, 9
_END_STREAM, _END_HEADERS = 0x1, 0x4


def _setting(settings: Settings, code: SettingCodes, missing: int) -> int:
    """What holds now of a setting, without h2's way there through five functions."""
    values = settings._settings.get(code)
    value: int | None = values[0] if values else None
    return missing if value is None else value


class HeaderWays(H2Connection):
    """Header blocks of either role."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.client: bool = config.client_side
        """The role; h2 asks its configuration by way of a descriptor."""
        self.reader = BlockReader()
        self.writer = BlockWriter()
        # In the places of hpack's own: h2 hands them settings, and blocks that do not come whole.
        self.decoder = self.reader  # type: ignore[assignment]  # the names that h2 uses are there
        self.encoder = self.writer  # type: ignore[assignment]  # as above
        self.refuse_from = 2**31
        """Streams from this id on are refused: a GOAWAY announced it."""
        self.active = 0
        """Calls that the role has running; kept by the processor."""
        self.max_active = 0
        """How many there may be."""
        self._decoded: Fields | None = None  # the block of the frame that h2 is given

    # Receiving --------------------------------------------------------------------------------

    def read(self, block: bytes | memoryview) -> Fields:
        """Decode a whole block. ProtocolError ends the connection: the table is lost."""
        try:
            return self.reader.read(bytes(block))
        except OversizedHeaderListError as error:
            raise DenialOfServiceError("header list over the limit") from error
        except HPACKError as error:
            failure = ProtocolError("header block cannot be decoded")
            failure.error_code = ErrorCodes.COMPRESSION_ERROR
            raise failure from error

    def request(self, stream_id: int, fields: Fields, *, end: bool) -> bool:
        """Begin the stream of a request; False: it is h2's."""
        if (
            stream_id <= self.highest_inbound_stream_id
            or not stream_id & 1
            or stream_id >= self.refuse_from
            or self.active >= self.max_active
            or fields.odd
            or self.state_machine.state is not ConnectionState.SERVER_OPEN
        ):
            return False
        stream = self._new_stream(stream_id)
        machine = stream.state_machine
        machine.client = False
        machine.headers_received = True
        machine.state = StreamState.HALF_CLOSED_REMOTE if end else StreamState.OPEN
        self.highest_inbound_stream_id = stream_id
        return True

    def response(self, stream: H2Stream, fields: Fields, *, end: bool) -> bool:
        """Note the headers or the trailers of a response; False: they are h2's."""
        machine = stream.state_machine
        state = machine.state
        if (
            (state is not StreamState.OPEN and state is not StreamState.HALF_CLOSED_LOCAL)
            or machine.trailers_received
            or (machine.headers_received and not end)
            or fields.odd
            or self.state_machine.state is not ConnectionState.CLIENT_OPEN
        ):
            return False
        if machine.headers_received:
            machine.trailers_received = True
        machine.headers_received = True
        if end:
            if state is StreamState.OPEN:
                machine.state = StreamState.HALF_CLOSED_REMOTE
            else:
                machine.state = StreamState.CLOSED
                machine.stream_closed_by = StreamClosedBy.RECV_END_STREAM
        return True

    def receive_fields(self, stream_id: int, fields: Fields, *, end: bool) -> list[Event]:
        """Let h2 process a block that is decoded already."""
        frame = HeadersFrame(stream_id)
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        self._decoded = fields
        try:
            return self._receive_frame(frame)
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise
        finally:
            self._decoded = None

    # Sending ----------------------------------------------------------------------------------

    def open_request(self, stream_id: int, headers: CallHeaders, *, end: bool) -> bool:
        """Open a stream with a request's headers; False: it is h2's."""
        if self.state_machine.state is not ConnectionState.CLIENT_OPEN:
            return False
        common, writer = headers.common, self.writer
        block = writer.known(headers.key) or writer.write(headers.key, headers[:common])
        if len(headers) > common:
            block += writer.encode(headers[common:])
        stream = self._new_stream(stream_id)
        machine = stream.state_machine
        machine.client = True
        machine.headers_sent = True
        machine.state = StreamState.HALF_CLOSED_LOCAL if end else StreamState.OPEN
        self.highest_outbound_stream_id = stream_id
        self._put_block(stream_id, block, end=end)
        return True

    def put_response(self, stream: H2Stream, key: Any, fields: Any, *, end: bool) -> bool:
        """Write the headers or trailers of a response, with a `key` that stands for them or None;
        False: it is h2's."""
        machine = stream.state_machine
        state = machine.state
        if (
            (state is not StreamState.OPEN and state is not StreamState.HALF_CLOSED_REMOTE)
            or machine.trailers_sent
            or (machine.headers_sent and not end)
            or self.state_machine.state is not ConnectionState.SERVER_OPEN
        ):
            return False
        writer = self.writer
        block = writer.encode(fields) if key is None else writer.write(key, fields)
        if machine.headers_sent:
            machine.trailers_sent = True
        machine.headers_sent = True
        if end:
            if state is StreamState.OPEN:
                machine.state = StreamState.HALF_CLOSED_LOCAL
            else:
                machine.state = StreamState.CLOSED
                machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
        self._put_block(stream.stream_id, block, end=end)
        return True

    def _new_stream(self, stream_id: int) -> H2Stream:
        stream = H2Stream(
            stream_id,
            self.config,
            _setting(self.local_settings, _WINDOW, 0),
            _setting(self.remote_settings, _WINDOW, 0),
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        self.streams[stream_id] = stream
        return stream

    @property
    def most_streams(self) -> int:
        """How many streams the peer lets this side have open."""
        return _setting(self.remote_settings, _STREAMS, 2**32)

    def _put_block(self, stream_id: int, block: bytes, *, end: bool) -> None:
        most = self.max_outbound_frame_size
        kind, flags, size = _HEADERS, int(end), len(block)
        out = self._data_to_send
        position = 0
        while size - position > most:
            out += FRAME.pack(most >> 8, most & 0xFF, kind, flags, stream_id)
            out += block[position : position + most]
            position += most
            kind, flags = _CONTINUATION, 0
        rest = size - position
        out += FRAME.pack(rest >> 8, rest & 0xFF, kind, flags | _END_HEADERS, stream_id)
        out += block[position:] if position else block
