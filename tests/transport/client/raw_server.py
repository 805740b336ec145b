"""A server that speaks HTTP/2 frame by frame, as rightly or wrongly as a test wants."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

F = TypeVar("F", bound=Frame)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_CONCURRENT_STREAMS = SettingsFrame.MAX_CONCURRENT_STREAMS
INITIAL_WINDOW_SIZE = SettingsFrame.INITIAL_WINDOW_SIZE
OK_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


def message(body: bytes = b"", flag: int = 0) -> bytes:
    """A gRPC message."""
    return struct.pack(">BI", flag, len(body)) + body


class Peer:
    """One connection, seen from the raw server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.number = number
        """0 for the first connection of the test, and so on."""
        self.frames: list[Frame] = []
        """Everything received, for a look afterwards."""
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 2**20
        self._complete: deque[int] = deque()

    async def greet(self, settings: dict[int, int] | None = None) -> None:
        """Read the client's preface and send our settings."""
        assert await self._reader.readexactly(len(PREFACE)) == PREFACE
        frame = SettingsFrame(0)
        frame.settings = settings or {}
        self.send(frame)

    def send(self, *frames: Frame) -> None:
        self.raw(b"".join(frame.serialize() for frame in frames))

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def frame(self) -> Frame:
        """The next frame; settings are acknowledged, header blocks decoded into `.headers`."""
        head = await self._reader.readexactly(9)
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(await self._reader.readexactly(length)))
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            acknowledgement = SettingsFrame(0)
            acknowledgement.flags.add("ACK")
            self.send(acknowledgement)
        if isinstance(frame, HeadersFrame):
            data = frame.data
            while "END_HEADERS" not in frame.flags:
                more = await self.frame()
                assert isinstance(more, ContinuationFrame)
                data += more.data
                if "END_HEADERS" in more.flags:
                    break
            frame.headers = dict(self._decoder.decode(data))  # type: ignore[attr-defined]  # read by the tests
        if isinstance(frame, HeadersFrame | DataFrame) and "END_STREAM" in frame.flags:
            self._complete.append(frame.stream_id)
        self.frames.append(frame)
        return frame

    async def until(self, kind: type[F], stream_id: int | None = None) -> F:
        """The next frame of a kind, and of a stream if one is named."""
        while True:
            frame = await self.frame()
            if isinstance(frame, kind) and stream_id in (None, frame.stream_id):
                return frame

    async def request(self) -> int:
        """Wait until a request is complete; return its stream. In the order of their ends."""
        while not self._complete:
            await self.frame()
        return self._complete.popleft()

    def fields(self, stream_id: int) -> dict[str, str]:
        """The header fields of a request that has come."""
        found: dict[str, str] = next(
            frame.headers  # type: ignore[attr-defined]  # read by the tests
            for frame in self.frames
            if isinstance(frame, HeadersFrame) and frame.stream_id == stream_id
        )
        return found

    def headers(
        self, stream_id: int, fields: list[tuple[str, str]] | None = None, *, end: bool = False
    ) -> HeadersFrame:
        frame = HeadersFrame(stream_id)
        frame.data = self._encoder.encode(OK_HEADERS if fields is None else fields)
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return frame

    def data(
        self, stream_id: int, data: bytes, *, end: bool = False, padding: int | None = None
    ) -> DataFrame:
        frame = DataFrame(stream_id)
        frame.data = data
        if end:
            frame.flags.add("END_STREAM")
        if padding is not None:
            frame.flags.add("PADDED")
            frame.pad_length = padding
        return frame

    def trailers(self, stream_id: int, status: int = 0, text: str = "") -> HeadersFrame:
        return self.headers(
            stream_id, [("grpc-status", str(status)), ("grpc-message", text)], end=True
        )

    def answer(self, stream_id: int, *bodies: bytes) -> None:
        """A whole response of well-formed messages."""
        self.send(
            self.headers(stream_id),
            *(self.data(stream_id, message(body)) for body in bodies),
            self.trailers(stream_id),
        )

    def reset(self, stream_id: int, code: int) -> RstStreamFrame:
        frame = RstStreamFrame(stream_id)
        frame.error_code = code
        return frame

    def go_away(self, last: int, code: int = 0, note: bytes = b"") -> GoAwayFrame:
        frame = GoAwayFrame(0)
        frame.last_stream_id = last
        frame.error_code = code
        frame.additional_data = note
        return frame

    def ping(self, data: bytes = b"raw ping") -> PingFrame:
        frame = PingFrame(0)
        frame.opaque_data = data
        return frame

    def window(self, stream_id: int, size: int) -> WindowUpdateFrame:
        frame = WindowUpdateFrame(stream_id)
        frame.window_increment = size
        return frame

    def abort(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()

    def close(self) -> None:
        """End the connection in order, after what was sent."""
        self._writer.close()

    async def hang(self) -> None:
        """Read on, answer nothing, until the client is gone."""
        while True:
            await self.frame()


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Runs a script for each connection; its exceptions end the test."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.peers: list[Peer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(self.peers))
        self.peers.append(peer)
        self._tasks.add(asyncio.create_task(self._run(peer, writer)))

    async def _run(self, peer: Peer, writer: asyncio.StreamWriter) -> None:
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client has left; whether too early shows at the client
        finally:
            writer.transport.abort()

    async def finish(self) -> None:
        """Wait for the scripts, whose clients are gone by now; raise what they raised."""
        done, pending = await asyncio.wait(self._tasks, timeout=20) if self._tasks else (set(), ())
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        for task in done:
            task.result()


@asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[RawServer]:
    """Listen, and run `script(peer)` for every connection."""
    server = RawServer(script)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.finish()
        await listener.wait_closed()
