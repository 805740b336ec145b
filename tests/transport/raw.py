"""A peer made of single frames: sends what no real client would, sees every frame that comes."""

from __future__ import annotations

import asyncio
import ssl
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import cast

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

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"
WATCH = "/streamservice.StreamService/WatchJobProgress"
PUBLISH = "/streamservice.ProducerService/Publish"
WRITE = "/streamservice.ProducerService/Write"

Fields = list[tuple[str, str]]

PATIENCE = 30.0
"""Seconds for what must come: many, as the machine may be busy with something else."""


def message(payload: bytes, flag: int = 0) -> bytes:
    """One gRPC message with its prefix."""
    return struct.pack(">BI", flag, len(payload)) + payload


def cut(data: bytes) -> list[bytes]:
    """The payloads of whole gRPC messages."""
    found = []
    while len(data) >= 5:
        (length,) = struct.unpack(">I", data[1:5])
        found.append(data[5 : 5 + length])
        data = data[5 + length :]
    assert not data
    return found


@dataclass
class Answer:
    """How one stream ended: with trailers, with a reset, or with its connection."""

    headers: dict[str, str]
    trailers: dict[str, str]
    data: bytes
    reset: int | None
    closed: bool

    @property
    def status(self) -> int | None:
        fields = self.trailers or self.headers
        return int(fields["grpc-status"]) if "grpc-status" in fields else None

    @property
    def http(self) -> str:
        return self.headers.get(":status", "")

    @property
    def message(self) -> str:
        return (self.trailers or self.headers).get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        return cut(self.data)


class RawClient:
    """An HTTP/2 client without rules."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.decoder.max_allowed_table_size = 2**16
        self.next_id = 1
        self.frames: list[Frame] = []
        self.answers: dict[int, Answer] = {}
        self.goaways: list[GoAwayFrame] = []
        self.settings: dict[int, int] = {}
        self.closed = False
        self.ack_settings = True
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    def stop_reading(self) -> None:
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    def read_again(self) -> None:
        cast(asyncio.Transport, self.writer.transport).resume_reading()

    async def connect(
        self,
        address: str,
        settings: dict[int, int] | None = None,
        *,
        hello: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> RawClient:
        if address.startswith("unix:"):
            reader, self.writer = await asyncio.open_unix_connection(address[5:])
        else:
            host, _, port = address.rpartition(":")
            reader, self.writer = await asyncio.open_connection(
                host, int(port), ssl=tls, server_hostname="localhost" if tls else None
            )
        self.reader = reader
        if hello:
            self.hello(settings)
        self._task = asyncio.create_task(self._read())
        return self

    def hello(self, settings: dict[int, int] | None = None) -> None:
        self.writer.write(PREFACE)
        frame = SettingsFrame(0)
        frame.settings = dict(settings or {})
        self.send(frame)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.writer.transport.abort()
        await asyncio.sleep(0)

    # Sending

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def fields(self, path: str = SUBSCRIBE, *more: tuple[str, str]) -> Fields:
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        ]

    def headers(
        self, fields: Fields | None = None, *, end: bool = False, stream: int | None = None
    ) -> HeadersFrame:
        if stream is None:
            stream, self.next_id = self.next_id, self.next_id + 2
        frame = HeadersFrame(stream)
        pairs = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in fields or self.fields()]
        frame.data = self.encoder.encode(pairs)
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return frame

    @staticmethod
    def data(
        stream: int, data: bytes, *, end: bool = True, padding: int | None = None
    ) -> DataFrame:
        frame = DataFrame(stream)
        frame.data = data
        if end:
            frame.flags.add("END_STREAM")
        if padding is not None:
            frame.flags.add("PADDED")
            frame.pad_length = padding
        return frame

    @staticmethod
    def rst(stream: int, code: int = 8) -> RstStreamFrame:
        frame = RstStreamFrame(stream)
        frame.error_code = code
        return frame

    @staticmethod
    def window(stream: int, increment: int) -> WindowUpdateFrame:
        frame = WindowUpdateFrame(stream)
        frame.window_increment = increment
        return frame

    @staticmethod
    def ping(data: bytes = b"12345678") -> PingFrame:
        frame = PingFrame(0)
        frame.opaque_data = data
        return frame

    def call(self, payload: bytes = b"", path: str = SUBSCRIBE, *more: tuple[str, str]) -> int:
        """Send a whole unary request; return its stream."""
        head = self.headers(self.fields(path, *more))
        self.send(head, self.data(head.stream_id, message(payload)))
        return head.stream_id

    # Receiving

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(1 << 16):
                self._buffer += data
                while len(self._buffer) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(bytes(self._buffer[:9])))
                    if len(self._buffer) < 9 + length:
                        break
                    frame.parse_body(memoryview(bytes(self._buffer[9 : 9 + length])))
                    del self._buffer[: 9 + length]
                    self._on_frame(frame)
                self._tell()
        except ConnectionError:
            pass
        finally:
            self.closed = True
            self.writer.close()
            for answer in self.answers.values():
                answer.closed = True
            self._tell()

    def _tell(self) -> None:
        self._news.set()

    def answer(self, stream: int) -> Answer:
        return self.answers.setdefault(stream, Answer({}, {}, b"", None, self.closed))

    def _on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, HeadersFrame):
            answer = self.answer(frame.stream_id)
            fields = {str(k): str(v) for k, v in self.decoder.decode(bytes(frame.data))}
            if not answer.headers:
                answer.headers = fields
                if "END_STREAM" in frame.flags:
                    answer.trailers = fields
            else:
                answer.trailers = fields
        elif isinstance(frame, ContinuationFrame):
            raise AssertionError("no answer is that large")
        elif isinstance(frame, DataFrame):
            self.answer(frame.stream_id).data += bytes(frame.data)
        elif isinstance(frame, RstStreamFrame):
            self.answer(frame.stream_id).reset = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append(frame)
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            pong = PingFrame(0)
            pong.opaque_data = frame.opaque_data
            pong.flags.add("ACK")
            self.send(pong)
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.settings.update(frame.settings)
            if self.ack_settings:
                ack = SettingsFrame(0)
                ack.flags.add("ACK")
                self.send(ack)

    async def until(self, condition: object, timeout: float = PATIENCE) -> None:
        """Wait until `condition()` holds or the connection is closed."""
        assert callable(condition)
        async with asyncio.timeout(timeout):
            while not condition() and not self.closed:
                self._news.clear()
                await self._news.wait()

    async def ended(self, stream: int, timeout: float = PATIENCE) -> Answer:
        """Wait for the end of a stream, however it ends."""
        answer = self.answer(stream)
        await self.until(lambda: bool(answer.trailers) or answer.reset is not None, timeout)
        return answer

    async def gone(self, timeout: float = PATIENCE) -> int | None:
        """Wait for the end of the connection; return the code of its last GOAWAY."""
        await self.until(lambda: False, timeout)
        return self.goaways[-1].error_code if self.goaways else None

    async def pong(self, timeout: float = PATIENCE) -> bool:
        """Whether the connection still answers: everything sent before was processed."""
        mark = struct.pack(">Q", len(self.frames))
        self.send(self.ping(mark))

        def answered() -> bool:
            return any(
                isinstance(f, PingFrame) and "ACK" in f.flags and f.opaque_data == mark
                for f in self.frames
            )

        await self.until(answered, timeout)
        return answered()
