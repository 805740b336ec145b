"""Cutting received bytes into frames; DATA of open streams takes a way past h2.

A DATA frame's bytes are handed on as they arrive, also before the frame is whole, so a frame of
a megabyte is never collected. Every other frame is collected (within limits that are checked
when its head is seen) and given to h2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from time import monotonic
from typing import Generic, Protocol, TypeVar

from h2.events import Event
from h2.exceptions import FrameDataMissingError, FrameTooLargeError, ProtocolError
from h2.stream import H2Stream

from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.http2.endings import NotHttp2Error, StreamLost, TooBusyError
from streamkit.transport.http2.headers import FRAME
from streamkit.transport.http2.machine import Http2

__all__ = ["FrameCutter", "Incoming"]

_TURN = 0.005  # seconds that the frames of one chunk may keep the loop for themselves,
_LOOK = 7  # checked every eighth frame
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = 9
_DATA, _HEADERS, _PRIORITY, _SETTINGS, _PUSH, _WINDOW, _CONTINUATION = 0, 1, 2, 4, 5, 8, 9
_END_STREAM, _END_HEADERS, _PADDED, _ACK = 0x1, 0x4, 0x8, 0x1
_PLAIN = 0x2C  # END_HEADERS, PADDED, and the flag of a priority inside
_PRIORITY_LENGTH = 5
_WINDOW_LENGTH = 4
_INCREMENT = Struct(">L")
_LARGE = 64 * 1024
_CONTROL_LENGTH = 16 * 1024  # of frames other than DATA and header blocks


class Incoming(Protocol):
    """What the bytes of a stream are given to."""

    lost: StreamLost | None
    messages_in: ReceiveBuffer

    @property
    def h2(self) -> H2Stream | None:
        """The state of the protocol."""
        ...

    def feed(self, data: bytes) -> None:
        """Bytes arrived."""
        ...

    def placed(self, size: int) -> None:
        """As `feed`, of bytes that were received in their place."""
        ...

    def __ended__(self) -> None:
        """No more will come."""
        ...


S = TypeVar("S", bound=Incoming)


class FrameCutter(Generic[S]):
    """Feeds one connection's bytes to its `Http2` and its streams."""

    __slots__ = (
        "_block",
        "_h2",
        "_large",
        "_latest_large",
        "_left",
        "_need",
        "_on_block",
        "_on_empty",
        "_on_events",
        "_on_update",
        "_preface",
        "_rest",
        "_settings_due",
        "_stream",
        "_streams",
        "_with_end",
        "behind",
        "frames",
    )

    def __init__(
        self,
        h2: Http2,
        streams: Mapping[int, S],
        on_events: Callable[[list[Event]], None],
        on_empty: Callable[[], None],
        on_update: Callable[[S | None], None],
        on_block: Callable[[int, bytes, bool], None],
    ) -> None:
        self._h2 = h2
        self._streams = streams
        self._on_events = on_events
        self._on_empty = on_empty
        self._on_update = on_update
        self._on_block = on_block
        self._rest = bytearray()  # the beginning of a frame that is not whole yet
        self._need = 0  # bytes of it before another look is worth it
        self._settings_due = True
        self._preface = not h2.config.client_side
        self._block = -1  # bytes of a header block that goes on; -1 between blocks
        # A DATA frame whose bytes are still arriving:
        self._left = 0
        self._stream: S | None = None
        self._with_end = False
        self._large = False  # whether one of the two latest DATA frames was: a message's last ...
        self._latest_large = False  # ... often is not
        self.behind = False
        """Whether frames wait here because those before them took long enough for one turn of the
        loop; `feed(b"")` goes on with them."""
        self.frames = 0
        """Frames of any kind that came, those in the middle of a header block not counted."""

    @property
    def waiting(self) -> bool:
        """Whether a frame, a header block or the peer's first settings are not whole yet.

        DATA is handed on as it comes, so a large frame on a slow line is nothing to wait for.
        """
        return bool(self._rest) or self._settings_due or self._block >= 0

    def feed(self, data: bytes) -> None:
        """Process received bytes. Raises ProtocolError when the connection must end."""
        self.behind = False
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self._preface:
            if len(data) < len(_PREFACE):
                if not _PREFACE.startswith(data):
                    raise NotHttp2Error(data)
                self._rest += data
                return
            if not data.startswith(_PREFACE):
                raise NotHttp2Error(data)
            self._h2.receive_frame(_PREFACE)
            self._preface = False
            position = len(_PREFACE)
        else:
            position = 0
        size = len(data)
        if self._settings_due and size - position >= _HEAD:
            kind, flags = data[position + 3 : position + 5]
            if kind != _SETTINGS or flags & _ACK:
                raise NotHttp2Error(data[position:])
            self._settings_due = False
        looks = 0
        until = 0.0
        while position < size:
            if self._left:
                position = self._more_data(data, position, size)
                continue
            if size - position < _HEAD:
                self._need = _HEAD
                break
            looks += 1
            if not looks & _LOOK:
                now = monotonic()
                if not until:
                    until = now + _TURN
                elif now > until:
                    self.behind = True
                    self._need = 0
                    break
            high, low, kind, flags, stream_id = FRAME.unpack_from(data, position)
            length = high << 8 | low
            stream_id &= 0x7FFFFFFF
            if kind == _DATA and not flags & _PADDED and self._block < 0:
                if length > self._h2.max_inbound_frame_size:
                    raise FrameTooLargeError("frame over the limit")
                stream = self._streams.get(stream_id)
                wire = None if stream is None else stream.h2
                if wire is not None and self._h2.open_data(wire, length):
                    if not length and not flags & _END_STREAM:
                        self._on_empty()
                    position += _HEAD
                    end = position + length
                    if length and end <= size and stream is not None:
                        self.frames += 1
                        if self._large or length >= _LARGE:
                            self._note(length)
                        stream.feed(data[position:end])
                        if flags & _END_STREAM:
                            self._end(stream)
                        position = end
                    else:
                        self._begin_data(stream, length, bool(flags & _END_STREAM))
                    continue
                if self._h2.is_over(stream_id):
                    if not self._h2.late_data(stream_id, length):
                        self._on_empty()
                    position += _HEAD
                    self._begin_data(None, length, False)
                    continue
            if (
                kind == _HEADERS
                and flags & _PLAIN == _END_HEADERS
                and self._block < 0
                and stream_id
                and size - position >= _HEAD + length
                and length <= self._h2.header_limit
            ):
                self.frames += 1
                position += _HEAD + length
                self._on_block(
                    stream_id, data[position - length : position], bool(flags & _END_STREAM)
                )
                continue
            if self._block >= 0 and kind != _CONTINUATION:
                raise ProtocolError("another frame inside a header block")
            if kind == _WINDOW and length == _WINDOW_LENGTH and size - position >= _HEAD + length:
                stream = self._streams.get(stream_id)
                wire = None if stream is None else stream.h2
                (increment,) = _INCREMENT.unpack_from(data, position + _HEAD)
                known = not stream_id or wire is not None
                if known and self._h2.opened(wire, increment & 0x7FFFFFFF):
                    self.frames += 1
                    position += _HEAD + length
                    self._on_update(stream)
                    continue
            self._check_head(kind, length, stream_id)
            if kind > _CONTINUATION or kind == _PRIORITY:
                # A type to be ignored: its bytes are passed over as they come.
                self._on_empty()
                position += _HEAD
                self._begin_data(None, length, False)
                continue
            end = position + _HEAD + length
            if end > size:
                self._need = end - position
                break
            self._track_block(kind, flags, length)
            if self._block < 0:
                self.frames += 1
            events = self._h2.receive_frame(data[position:end])
            position = end
            if events:
                self._on_events(events)
            elif kind == _WINDOW:
                self._on_update(None)
            elif not self._h2.excuse(stream_id):
                self._on_empty()  # for a stream that is gone or refused, or not whole yet
        if position < size:
            self._rest += memoryview(data)[position:]

    @property
    def large_next(self) -> bool:
        """Whether what comes next is likely to be the head of a large DATA frame."""
        return self._large and not self._left

    def place(self) -> memoryview | None:
        """Where the bytes that come next belong, when that is known ahead."""
        stream = self._stream
        if stream is None or not self._left or stream.lost is not None:
            return None
        return stream.messages_in.place(self._left)

    def placed(self, size: int) -> None:
        """As `feed`, of bytes that were received in the place."""
        stream = self._stream
        self._left -= size
        if stream is not None:
            stream.placed(size)
            if not self._left:
                self._finish_data(stream)

    def _begin_data(self, stream: S | None, length: int, with_end: bool) -> None:
        self.frames += 1
        if length:
            self._note(length)
            self._left = length
            self._stream = stream
            self._with_end = with_end
        elif with_end and stream is not None:
            self._end(stream)

    def _note(self, length: int) -> None:
        large = length >= _LARGE
        self._large, self._latest_large = self._latest_large or large, large

    def _more_data(self, data: bytes, position: int, size: int) -> int:
        end = min(size, position + self._left)
        self._left -= end - position
        stream = self._stream
        if stream is not None:
            stream.feed(data if position == 0 and end == size else data[position:end])
            if not self._left:
                self._finish_data(stream)
        return end

    def _finish_data(self, stream: S) -> None:
        self._stream = None
        if self._with_end:
            self._end(stream)

    def _end(self, stream: S) -> None:
        wire = stream.h2
        if wire is not None and not wire.closed:
            self._h2.end_data(wire)
            stream.__ended__()

    def _check_head(self, kind: int, length: int, stream_id: int) -> None:
        """Refuse by its head a frame that would have to be collected, or that means nothing."""
        if kind == _DATA or kind > _CONTINUATION:
            limit = self._h2.max_inbound_frame_size
        elif kind in (_HEADERS, _PUSH, _CONTINUATION):
            limit = self._h2.header_limit
        else:
            limit = _CONTROL_LENGTH
        if length > limit:
            raise FrameTooLargeError("frame over the limit")
        if kind == _PRIORITY:  # what it says is ignored, but it must be one
            if length != _PRIORITY_LENGTH:
                raise FrameDataMissingError("priority of a wrong length")
            if not stream_id:
                raise ProtocolError("priority of no stream")

    def _track_block(self, kind: int, flags: int, length: int) -> None:
        """Bound a header block's encoded bytes over all its CONTINUATION frames."""
        if kind in (_HEADERS, _PUSH):
            self._block = -1 if flags & _END_HEADERS else length
        elif kind == _CONTINUATION and self._block >= 0:
            if not length:
                self._on_empty()
            self._block += length
            if self._block > self._h2.header_limit:
                raise TooBusyError("header block over the limit")
            if flags & _END_HEADERS:
                self._block = -1
