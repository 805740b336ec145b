"""A server that only sends bytes prepared beforehand: what a client gets from it is the most that
the client takes, whatever serves it.

How the messages are cut into frames and writes makes no difference to grpcio's client: its
instructions per message are the same within two per cent from one message in a frame to thousands.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from bench.stacks import load

pb = load.schema()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPDATE = pb.Update(topic=load.TOPIC, message=load.TEXT).SerializeToString()
MESSAGE = b"\0" + len(UPDATE).to_bytes(4, "big") + UPDATE
PER_FRAME = 16_384 // len(MESSAGE)
FRAMES_PER_WRITE = 4


class Connection:
    """One client, served until it leaves; its windows are obeyed, its pings answered."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._input = bytearray()
        self._window = self._initial = 65_535
        self._windows: dict[int, int] = {}
        self._requests: dict[int, bytes] = {}
        self._asked: list[int] = []

    def serve(self) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.recv(len(PREFACE), socket.MSG_WAITALL)
        self._send(SettingsFrame(0))
        while True:
            while not self._asked:
                self._receive()
            stream = self._asked.pop(0)
            request = pb.SubscribeRequest.FromString(self._requests.pop(stream)[5:])
            self._answer(stream, int(request.client_id))

    def _answer(self, stream: int, count: int) -> None:
        self._send_headers(stream, (":status", "200"), ("content-type", "application/grpc"))
        frames, rest = divmod(count, PER_FRAME)
        frame = DataFrame(stream, MESSAGE * PER_FRAME).serialize()
        size = PER_FRAME * len(MESSAGE)
        block = memoryview(frame * FRAMES_PER_WRITE)
        while frames:
            number = min(frames, FRAMES_PER_WRITE, self._room(stream) // size)
            if not number:
                self._receive()
                continue
            self._sock.sendall(block[: number * len(frame)])
            self._take(stream, number * size)
            frames -= number
            while select.select([self._sock], [], [], 0)[0]:
                self._receive()
        while self._room(stream) < rest * len(MESSAGE):
            self._receive()
        self._send(DataFrame(stream, MESSAGE * rest))
        self._take(stream, rest * len(MESSAGE))
        self._send_headers(stream, ("grpc-status", "0"), end=True)
        del self._windows[stream]

    def _room(self, stream: int) -> int:
        return min(self._window, self._windows[stream])

    def _take(self, stream: int, size: int) -> None:
        self._window -= size
        self._windows[stream] -= size

    def _receive(self) -> None:
        """Wait for something from the client, and process what is whole of it."""
        data = self._sock.recv(65_536)
        if not data:
            raise ConnectionError
        self._input += data
        while len(self._input) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._input[:9]))
            if len(self._input) < 9 + length:
                break
            frame.parse_body(memoryview(self._input[9 : 9 + length]))
            del self._input[: 9 + length]
            self._process(frame)

    def _process(self, frame: Any) -> None:
        if isinstance(frame, WindowUpdateFrame):
            if not frame.stream_id:
                self._window += frame.window_increment
            elif frame.stream_id in self._windows:
                self._windows[frame.stream_id] += frame.window_increment
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            initial = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._initial)
            for stream in self._windows:
                self._windows[stream] += initial - self._initial
            self._initial = initial
            self._send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self._send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, HeadersFrame):
            self._windows[frame.stream_id] = self._initial
            self._requests[frame.stream_id] = b""
        elif isinstance(frame, DataFrame):
            self._requests[frame.stream_id] += frame.data
            if "END_STREAM" in frame.flags:
                self._asked.append(frame.stream_id)

    def _send_headers(self, stream: int, *fields: tuple[str, str], end: bool = False) -> None:
        # A fresh encoder and no table: these few bytes depend on nothing sent before.
        block = Encoder().encode([(*field, True) for field in fields])
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        self._send(HeadersFrame(stream, block, flags=flags))

    def _send(self, frame: Frame) -> None:
        self._sock.sendall(frame.serialize())


def accept(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        with sock:
            try:
                Connection(sock).serve()
            except ConnectionError:
                continue


def main() -> None:
    """serve"""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, args=[listener], daemon=True).start()
    load.announce(listener.getsockname()[1])
    load.wait_for_the_end()


if __name__ == "__main__":
    main()
