"""Readers of events for `bench doors`, at every server and by every door.

    python -m bench.stacks.event_readers read PORT DOOR TOPIC READERS EVENTS
    python -m bench.stacks.event_readers latency PORT READERS EVENTS

Doors are events, fastapi, web and connect (gRPC-Web at ours and at connectrpc), and web2 and
connect2, which are the same over HTTP/2, a hundred streams on a connection.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

from hpack import Encoder

from bench.stacks import load
from bench.stacks.events import TEXT

STREAMS = 100
"""Of one connection of HTTP/2."""
_MARK = TEXT[-12:].encode()
"""Once in every event, whatever it is wrapped in."""
_STAMP = re.compile(rb"at (\d{6,}) an order")
_PATH = "/streamservice.StreamService/SubscribeToUpdates"
_KIND = "application/grpc-web+proto"
_LARGEST = 2**31 - 1
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW = 0, 1, 4, 6, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4


class Count:
    """What all readers of this program have seen."""

    def __init__(self, readers: int, events: int) -> None:
        self.left = readers * events
        self.quiet = readers
        """Readers whose response has not begun."""
        self.first = 0.0
        self.begun = asyncio.Event()
        self.done = asyncio.Event()

    def seen(self, events: int) -> None:
        self.first = self.first or time.perf_counter()
        self.left -= events
        if self.left <= 0:
            self.done.set()

    def began(self) -> None:
        self.quiet -= 1
        if not self.quiet:
            self.begun.set()


class Http1Reader(asyncio.Protocol):
    """Counts the events of one response."""

    def __init__(self, request: bytes, count: Count) -> None:
        self._request, self._count = request, count
        self._tail: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._tail is None:
            self._tail = b""
            self._count.began()
        found = (self._tail + data).count(_MARK)
        self._tail = data[-len(_MARK) + 1 :]
        if found:
            self._count.seen(found)

    def connection_lost(self, error: BaseException | None) -> None:
        if not self._count.done.is_set():
            raise SystemExit("a reader was cut off")


class Timed(Http1Reader):
    """Notes how old events are when they come."""

    ages: list[float]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.ages += [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(data)]
        super().data_received(data)


class Http2Reader(asyncio.Protocol):
    """Counts the events of the streams of one connection, which is given all windows at once."""

    def __init__(self, body: bytes, streams: int, count: Count) -> None:
        self._body, self._streams, self._count = body, streams, count
        self._buffer = b""
        self._tails: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        heads = Encoder()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", _PATH)]
        fields += [(":authority", "localhost"), ("content-type", _KIND)]
        window = _LARGEST.to_bytes(4, "big")
        parts = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        parts.append(_frame(_SETTINGS, 0, 0, b"\0\4" + window))
        parts.append(_frame(_WINDOW, 0, 0, (_LARGEST - 65_535).to_bytes(4, "big")))
        for number in range(1, 2 * self._streams, 2):
            parts.append(_frame(_HEADERS, _END_HEADERS, number, heads.encode(fields)))
            parts.append(_frame(_DATA, _END_STREAM, number, self._body))
        self._transport.write(b"".join(parts))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        at, found = 0, 0
        while at + 9 <= len(buffer):
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if end > len(buffer):
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9], "big")
            if kind == _DATA:
                text = self._tails[number] + buffer[at + 9 : end]
                found += text.count(_MARK)
                self._tails[number] = text[-len(_MARK) + 1 :]
            elif kind == _HEADERS:
                self._tails[number] = b""
                self._count.began()
            elif kind == _SETTINGS and not flags & _ACK:
                self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self._transport.write(_frame(_PING, _ACK, 0, buffer[at + 9 : end]))
            at = end
        self._buffer = buffer[at:]
        if found:
            self._count.seen(found)

    def connection_lost(self, error: BaseException | None) -> None:
        if not self._count.done.is_set():
            raise SystemExit("a reader was cut off")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def asked(door: str, topic: str, everything: bool) -> bytes:
    """A request for a stream; over HTTP/2 its body."""
    if door in ("events", "fastapi"):
        path = f"/v1/updates?topic={topic}{'&all=1' if everything else ''}"
        if door == "fastapi":
            path = "/all" if everything else "/live"
        return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    # A SubscribeRequest by hand: its topics, who makes live ones, and for ours that all is wanted.
    name, _, how = topic.partition("|")
    body = _field(1, name.encode()) + (_field(2, how.encode()) if how else b"")
    if everything and door in ("web", "web2"):
        body += _field(10, b"\x10\x01")  # all that is kept
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    if door.endswith("2"):
        return framed
    head = (
        f"POST {_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {_KIND}\r\n"
        f"content-length: {len(framed)}\r\n\r\n"
    )
    return head.encode() + framed


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


async def read(port: int, door: str, topic: str, readers: int, events: int) -> None:
    """Read; print the events per second, all readers together. Several say that they are ready
    first, and count from the first event; without events they stay until the end of the input."""
    count = Count(readers, events or sys.maxsize)
    request = asked(door, topic, everything=readers == 1)
    made: list[Callable[[], asyncio.Protocol]] = []
    if door.endswith("2"):
        for start in range(0, readers, STREAMS):
            streams = min(STREAMS, readers - start)
            made.append(partial(Http2Reader, request, streams, count))
    else:
        made += [partial(Http1Reader, request, count)] * readers
    started = time.perf_counter()
    await _connect(port, made, count, ready=readers > 1)
    if not events:
        await asyncio.to_thread(sys.stdin.read)
        count.done.set()
        return
    await count.done.wait()
    if readers > 1:
        started = count.first
    print(json.dumps(readers * events / (time.perf_counter() - started)), flush=True)


async def latency(port: int, readers: int, events: int) -> None:
    """Print the median and the 99th percentile of the milliseconds from publishing to reading."""
    count = Count(readers, events)
    request = asked("events", "live", everything=False)
    Timed.ages = []
    await _connect(port, [partial(Timed, request, count)] * readers, count, ready=True)
    await count.done.wait()
    ages = sorted(Timed.ages[len(Timed.ages) // 20 :])
    found = {"p50": statistics.median(ages), "p99": ages[len(ages) * 99 // 100]}
    print(json.dumps(found), flush=True)


async def _connect(
    port: int, made: list[Callable[[], asyncio.Protocol]], count: Count, *, ready: bool
) -> None:
    loop = asyncio.get_running_loop()
    for one in made:
        await loop.create_connection(one, "127.0.0.1", port)
    if ready:
        await count.begun.wait()
        print("ready", flush=True)


def main() -> None:
    import uvloop

    load.raise_file_limit()
    what, port, *words = sys.argv[1:]
    if what == "read":
        door, topic, readers, events = words
        uvloop.run(read(int(port), door, topic, int(readers), int(events)))
    else:
        uvloop.run(latency(int(port), *map(int, words)))


if __name__ == "__main__":
    main()
