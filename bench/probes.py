"""What versus.py runs in each of two trees: a program for everything that must not become slower.

    python -P bench/probes.py NAME        with PYTHONPATH naming the tree

Only what both trees have is used. Prints the figures as JSON: name -> value, unit, less is better.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, tuple[float, str, bool]]

TEXT = "x" * 80


def per_call(work: Callable[[], object], count: int) -> float:
    """Microseconds of CPU, best of seven."""
    found = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(count):
            work()
        found.append((time.process_time() - began) / count * 1e6)
    return min(found)


def codec() -> Figures:
    from datetime import UTC, datetime

    from streamkit.codec import decode, encode
    from streamkit.generated.streamservice import QueryResult, Row, Update

    def make() -> Update:
        return Update("orders.eu", TEXT, datetime.now(UTC), {"a": "b"})

    update = make()
    data = encode(update)
    result = QueryResult([Row({f"c{n}": f"value {n}" for n in range(5)}) for _ in range(500)])
    block = encode(result)
    return {
        "codec: make an Update": (per_call(make, 20_000), "us CPU", True),
        "codec: encode an Update": (per_call(lambda: encode(update), 20_000), "us CPU", True),
        "codec: decode an Update": (per_call(lambda: decode(Update, data), 20_000), "us CPU", True),
        "codec: encode 500 rows": (per_call(lambda: encode(result), 40), "us CPU", True),
        "codec: decode 500 rows": (
            per_call(lambda: decode(QueryResult, block), 40),
            "us CPU",
            True,
        ),
    }


def wire() -> Figures:
    from bench import wire as tree

    with tempfile.TemporaryDirectory() as folder:
        tree.generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        rate, busier = tree.rate("ours", "count")
        payload, _ = tree.rate("ours", "big")
    return {
        "wire: a message of a stream, busier side": (1e6 / busier, "us CPU", True),
        "wire: messages of a stream": (rate, "messages/s", False),
        "wire: 1 MiB payloads": (payload, "MB/s", False),
    }


def journal() -> Figures:
    from bench import journal as tree

    async def spent() -> tuple[float, float]:
        began = time.process_time()
        rate = await tree.ingest(80_000, 100)
        return (time.process_time() - began) / 80_000 * 1e6, rate

    async def read() -> float:
        from streamkit.generated.streamservice import Update

        async with tree.fresh(ring=1) as store:
            batch = [Update(topic=f"orders.{n % 20}", message=TEXT) for n in range(1000)]
            for _ in range(100):
                await store.append_updates(batch)
            began = time.process_time()
            await tree.resume(store, ">")
            return (time.process_time() - began) / 100_000 * 1e6

    cpu, rate = asyncio.run(spent())
    return {
        "journal: store an update, 100 a batch": (cpu, "us CPU", True),
        "journal: updates stored, 100 a batch": (rate, "updates/s", False),
        "journal: read one back, framed": (asyncio.run(read()), "us CPU", True),
    }


def ingest() -> Figures:
    from bench.resume import streamkit
    from streamkit.codec import StreamkitCodec
    from streamkit.generated.streamservice import Producer, Update, WriteReply, WriteRequest
    from streamkit.transport import Channel
    from streamkit.transport import run as run_loop

    async def write(server: Any, events: int, per_request: int) -> tuple[float, float, float]:
        updates = [Update(topic="orders.eu", message=TEXT)] * per_request
        requests = events // per_request
        channel = Channel(f"127.0.0.1:{server.port}", codec=StreamkitCodec())
        path = "/streamservice.ProducerService/Write"
        async with channel.stream(path, WriteRequest, WriteReply) as call:

            async def send() -> None:
                for number in range(1, requests + 1):
                    producer = Producer(f"p{per_request}", number)
                    await call.send(WriteRequest(producer, updates=updates))
                await call.end()

            before, own, began = server.cpu, time.process_time(), time.perf_counter()
            sending = asyncio.create_task(send())
            replies = 0
            while found := await call.receive():
                replies += len(found)
            await sending
            took = time.perf_counter() - began
        await channel.aclose()
        assert replies == requests
        cpu, own = server.cpu - before, time.process_time() - own
        return events / took, cpu / events * 1e6, own / events * 1e6

    figures: Figures = {}
    for events, per_request, name in ((200_000, 100, "100 a request"), (30_000, 1, "1 a request")):
        with tempfile.TemporaryDirectory() as folder, streamkit(f"{folder}/store.db") as server:
            rate, cpu, own = run_loop(write(server, events, per_request))
        figures[f"ingest: an event, {name}, server"] = (cpu, "us CPU", True)
        figures[f"ingest: an event, {name}, client"] = (own, "us CPU", True)
        figures[f"ingest: events, {name}"] = (rate, "events/s", False)
    return figures


def resume() -> Figures:
    from bench import resume as tree
    from bench.wire import generate

    updates = 200_000
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        store = f"{folder}/store.db"
        tree.program("fill", store, updates)
        with tree.streamkit(store) as server:
            address = f"127.0.0.1:{server.port}"
            rate, cpu, own = tree.measured(server, "read", address, ">", updates, 1)
    return {
        "resume: an update, server": (cpu, "us CPU", True),
        "resume: an update, client": (own, "us CPU", True),
        "resume: updates": (rate, "updates/s", False),
    }


def query() -> Figures:
    from bench import query as tree

    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        tree.make_sqlite(Path(folder))
        tree.make_duckdb(Path(folder))
        for source in ("sqlite", "duckdb"):
            for columns in ("3", "10"):
                with tree.serving("streamkit") as server:
                    # A server lives long: its processes for statements are there by then.
                    runs = [tree.client("streamkit", server, source, columns) for _ in range(3)]
                    found = max(runs, key=lambda run: run["rows"])
                figures[f"query: rows of {columns} columns, {source}"] = (
                    found["rows"],
                    "rows/s",
                    False,
                )
    return figures


def calls() -> Figures:
    from bench.resume import streamkit
    from streamkit.client import AsyncClient
    from streamkit.transport import run as run_loop

    async def publish(server: Any, width: int, count: int) -> tuple[float, float, float]:
        async with AsyncClient(f"127.0.0.1:{server.port}") as client:
            await client.publish("orders.eu", TEXT)
            numbers = iter(range(count))

            async def some() -> None:
                for _ in numbers:
                    await client.publish("orders.eu", TEXT)

            before, own, began = server.cpu, time.process_time(), time.perf_counter()
            await asyncio.gather(*(some() for _ in range(width)))
            took = time.perf_counter() - began
            cpu, own = server.cpu - before, time.process_time() - own
        return count / took, cpu / count * 1e6, own / count * 1e6

    figures: Figures = {}
    for width, count in ((1, 1_500), (64, 6_000)):
        with tempfile.TemporaryDirectory() as folder, streamkit(f"{folder}/store.db") as server:
            rate, cpu, own = run_loop(publish(server, width, count))
        figures[f"publish, {width} at once, server"] = (cpu, "us CPU", True)
        figures[f"publish, {width} at once, client"] = (own, "us CPU", True)
        figures[f"publish, {width} at once"] = (rate, "calls/s", False)
    return figures


PROBES: dict[str, Callable[[], Figures]] = {
    "codec": codec,
    "wire": wire,
    "journal": journal,
    "ingest": ingest,
    "resume": resume,
    "query": query,
    "calls": calls,
}


if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]]()))
