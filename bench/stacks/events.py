"""Servers of events for `bench doors`, ours and FastAPI's, and who publishes at ours.

    python -m bench.stacks.events ours|fastapi EVENTS [unmerged]     serves; prints its port
    python -m bench.stacks.events publish PORT

There are EVENTS to be read at once. A line on the standard input of FastAPI's server and of the
publisher makes live ones: `N together` as fast as it goes, `N one` the next when the last is
acknowledged, `N paced M` M a second, `N stamped M` the same with the time in each. `unmerged`:
many who wait are woken for every event.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from bench.stacks import load

TEXT = "an order of 3 pieces, to be sent to the usual address, paid by card"


async def _commands(live: Any) -> None:
    """Send live events for each line of standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        await live(int(line[0]), line[1], float(line[2]) if len(line) > 2 else 0.0)


async def due(began: float, n: int, a_second: float) -> None:
    """Wait until the n-th of so many a second; what comes late does not put off the next."""
    await asyncio.sleep(max(began + n / a_second - time.monotonic(), 0) if a_second else 0)


async def ours(events: int, *, merged: bool = True) -> None:
    """A streamkit server with a door."""
    import streamkit
    from streamkit.journal.live import ring
    from streamkit.process import dedicate_process

    if not merged:
        ring._MANY = sys.maxsize
    dedicate_process()  # as `streamkit serve` does
    with tempfile.TemporaryDirectory() as folder:
        async with (
            streamkit.Server(journal=f"{folder}/store.db", port=0, web=True) as server,
            streamkit.AsyncClient(server.address) as client,
        ):
            async with client.publisher() as publisher:
                for n in range(events):
                    await publisher.send("orders.eu", TEXT, {"n": n})
            print(server.port, flush=True)
            await asyncio.to_thread(load.wait_for_the_end)


async def publish(port: int) -> None:
    """A client that publishes at a streamkit server; says when it is connected."""
    import streamkit

    async with streamkit.AsyncClient(f"127.0.0.1:{port}") as client:

        async def live(count: int, how: str, a_second: float) -> None:
            if how == "together":
                async with client.publisher() as publisher:
                    for n in range(count):
                        await publisher.send("live", TEXT, {"n": n})
                return
            began = time.monotonic()
            for n in range(count):
                if a_second:
                    await due(began, n, a_second)
                text = f"at {time.monotonic_ns()} {TEXT}" if how == "stamped" else TEXT
                await client.publish("live", text, metadata={"n": n})

        await client.status()
        print("ready", flush=True)
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

    async def live(count: int, how: str, a_second: float) -> None:
        began = time.monotonic()
        for n in range(count):
            one = event("live", n)
            for queue in queues:
                queue.put_nowait(one)
            if how != "together":
                await due(began, n + 1, a_second)

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


def main() -> None:
    import uvloop

    stack, events, *more = sys.argv[1:]
    load.raise_file_limit()
    if stack == "publish":
        uvloop.run(publish(int(events)))
    elif stack == "ours":
        uvloop.run(ours(int(events), merged="unmerged" not in more))
    else:
        uvloop.run(fastapi(int(events)))


if __name__ == "__main__":
    main()
