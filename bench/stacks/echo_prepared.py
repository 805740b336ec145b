"""A client that only sends bytes prepared beforehand: what a server gives it is the most that the
server has to give, whoever asks."""

from __future__ import annotations

import socket
import time
from importlib import import_module
from struct import Struct

from hpack import Encoder
from hyperframe.frame import PingFrame, SettingsFrame, WindowUpdateFrame

from bench.stacks import load

__all__ = ["ask"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_AT_ONCE = 64
_SECONDS = 1.5
_ID = Struct(">L").pack
_HEAD = Struct(">BHBBL").unpack_from
_FIELDS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo.Echo/Say"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "prepared"),
)


class Asking:
    """One connection with so many calls under way."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = SettingsFrame(0).serialize()
        room = WindowUpdateFrame(0, window_increment=1 << 30).serialize()
        self._sock.sendall(_PREFACE + first + room)
        block = Encoder().encode([(*field, True) for field in _FIELDS])  # of no table
        note = bytes(import_module("echo").Note("hello", 7))
        body = b"\0" + len(note).to_bytes(4, "big") + note
        self._head = len(block).to_bytes(3, "big") + b"\1\4"
        self._middle = block + len(body).to_bytes(3, "big") + b"\0\1"
        self._body = body
        self._stream = 1
        self._input = bytearray()

    def calls(self, count: int) -> None:
        """So many calls, 64 at once."""
        left, under_way = count, 0
        while left or under_way:
            more = min(left, _AT_ONCE - under_way)
            self._sock.sendall(b"".join(map(self._call, range(more))))
            left, under_way = left - more, under_way + more
            under_way -= self._answered()

    def _call(self, _: int) -> bytes:
        stream = _ID(self._stream)
        self._stream += 2
        return b"".join((self._head, stream, self._middle, stream, self._body))

    def _answered(self) -> int:
        """Wait for something; return how many calls have ended with it."""
        data = self._sock.recv(262_144)
        assert data, "the server has closed the connection"
        self._input += data
        ended = at = 0
        while len(self._input) - at >= 9:
            high, low, kind, flags, _ = _HEAD(self._input, at)
            end = at + 9 + (high << 16 | low)
            if end > len(self._input):
                break
            if kind == 1:
                ended += flags & 1
            elif kind == 4 and not flags & 1:
                self._sock.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
            elif kind == 6 and not flags & 1:
                asked = bytes(self._input[at + 9 : end])
                self._sock.sendall(PingFrame(0, asked, flags=["ACK"]).serialize())
            assert kind not in (3, 7), "the server refuses"
            at = end
        del self._input[:at]
        return ended


def ask(port: int) -> None:
    """Report the rate."""
    asking = Asking(port)
    asking.calls(500)
    count = total = 500
    while True:
        total += count
        cpu, start = time.process_time(), time.perf_counter()
        asking.calls(count)
        elapsed = time.perf_counter() - start
        if elapsed > 0.7 * _SECONDS:
            spent = time.process_time() - cpu
            load.report(rate=count / elapsed, cpu=spent / count, total=total)
            return
        count = max(count + 1, int(count * min(10.0, _SECONDS / elapsed)))
