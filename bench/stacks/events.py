"""Programs of `bench doors`: servers of events, ours and FastAPI's, and one reader of all.

    python -m bench.stacks.events ours|fastapi EVENTS      serves; prints its port
    python -m bench.stacks.events read PORT DOOR TOPIC READERS EVENTS

A line on a server's standard input makes it send that many live events.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from bench.stacks import load

TEXT = "an order of 3 pieces, to be sent to the usual address, paid by card"


async def _commands(live: Any) -> None:
    """Send live events for each line of standard input: N together, or "1 by 1 N"."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await live(int(line.split()[-1]), together=b" " not in line.strip())


async def ours(events: int) -> None:
    """A streamkit server with a door."""
    import streamkit

    with tempfile.TemporaryDirectory() as folder:
        async with (
            streamkit.Server(journal=f"{folder}/store.db", port=0, web=True) as server,
            streamkit.AsyncClient(server.address) as client,
        ):
            async with client.publisher() as publisher:
                for n in range(events):
                    await publisher.send("orders.eu", TEXT, {"n": n})

            async def live(count: int, *, together: bool) -> None:
                if not together:
                    for n in range(count):
                        await client.publish("live", TEXT, metadata={"n": n})
                    return
                async with client.publisher() as publisher:
                    for n in range(count):
                        await publisher.send("live", TEXT, {"n": n})

            print(server.port, flush=True)
            await _commands(live)


async def fastapi(events: int) -> None:
    """FastAPI's own events, on uvicorn with uvloop and httptools."""
    uvicorn: Any = import_module("uvicorn")
    sse: Any = import_module("fastapi.sse")
    app: Any = import_module("fastapi").FastAPI()
    queues: set[asyncio.Queue[Any]] = set()

    def event(topic: str, n: int) -> Any:
        told = {
            "topic": topic,
            "message": TEXT,
            "timestamp": "2026-01-31T12:00:00.123456Z",
            "metadata": {"n": str(n)},
            "sequence": str(n),
        }
        return sse.ServerSentEvent(data=told, id=f"0123456789abcdef.{n}")

    async def everything() -> AsyncIterator[Any]:
        for n in range(events):
            yield event("orders.eu", n)

    async def live_ones() -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    async def live(count: int, *, together: bool) -> None:
        for n in range(count):
            one = event("live", n)
            for queue in queues:
                queue.put_nowait(one)
            if not together:
                await asyncio.sleep(0)

    app.get("/all", response_class=sse.EventSourceResponse)(everything)
    app.get("/live", response_class=sse.EventSourceResponse)(live_ones)
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # nothing of it can be awaited
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    commands = asyncio.create_task(_commands(live))
    await asyncio.wait([serving, commands], return_when=asyncio.FIRST_COMPLETED)


_MARK = TEXT[-12:].encode()
"""Once in every event, whatever it is wrapped in."""


def asked(door: str, topic: str, everything: bool) -> bytes:
    """The bytes of a request for a stream, by the door through which it is asked for."""
    if door == "events":
        more = "&all=1" if everything else ""
        return f"GET /v1/updates?topic={topic}{more} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    if door == "fastapi":
        path = "/all" if everything else "/live"
        return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    # A SubscribeRequest by hand: its topics, who makes live ones, and for ours that all is wanted.
    name, _, how = topic.partition("|")
    body = _field(1, name.encode()) + (_field(2, how.encode()) if how else b"")
    if everything and door == "web":
        body += _field(10, b"\x10\x01")  # all that is kept
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    head = (
        "POST /streamservice.StreamService/SubscribeToUpdates HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/grpc-web+proto\r\ncontent-length: {len(framed)}\r\n\r\n"
    )
    return head.encode() + framed


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


class _Reader(asyncio.Protocol):
    """Counts the events of one response."""

    def __init__(self, request: bytes, events: int) -> None:
        self._request, self._left = request, events
        self._tail = b""
        self.begun = asyncio.Event()
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.begun.set()
        self._left -= (self._tail + data).count(_MARK)
        self._tail = data[-len(_MARK) + 1 :]
        if self._left <= 0:
            self.done.set()

    def connection_lost(self, error: BaseException | None) -> None:
        self.done.set()


async def read(port: int, door: str, topic: str, readers: int, events: int) -> None:
    """Read; print the events per second, all readers together. Several say that they are ready
    first; without events they stay until the end of the input."""
    load.raise_file_limit()
    loop = asyncio.get_running_loop()
    request = asked(door, topic, everything=readers == 1)
    found = []
    started = time.perf_counter()
    for _ in range(readers):
        _, reader = await loop.create_connection(
            lambda: _Reader(request, events or 1), "127.0.0.1", port
        )
        found.append(reader)
    if readers > 1:
        for reader in found:
            await reader.begun.wait()
        print("ready", flush=True)
        started = time.perf_counter()
    if not events:
        await asyncio.to_thread(sys.stdin.read)
        return
    for reader in found:
        await reader.done.wait()
    print(json.dumps(readers * events / (time.perf_counter() - started)), flush=True)


def main() -> None:
    import uvloop

    what, *words = sys.argv[1:]
    if what == "read":
        port, door, topic, readers, events = words
        uvloop.run(read(int(port), door, topic, int(readers), int(events)))
    else:
        load.raise_file_limit()
        uvloop.run({"ours": ours, "fastapi": fastapi}[what](int(words[0])))


if __name__ == "__main__":
    main()
