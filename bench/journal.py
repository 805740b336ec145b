"""The journal alone, in one process: what it stores, reads, finds and fans out in a second.

    python -m bench journal
    python -m bench.journal [events]

The first sets the main figures next to what sqlite3 does bare, without sequences, dedupe, readers
or messages; the second prints all of them. Times are wall clock except where CPU is said.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamkit.codec import frame
from streamkit.config import JournalOptions
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.journal import (
    Hub,
    Journal,
    ProducerId,
    Selector,
    Start,
    Stream,
    joined_frames,
    open_journal,
)
from streamkit.journal.records.frames import framed as framed_by_handler
from streamkit.journal.sqlite.schema import open_store

__all__ = ["find", "ingest", "main", "resume", "routing", "run"]

TEXT = "x" * 80
LEVELS = ("debug", "info", "info", "info", "warn", "error")


@asynccontextmanager
async def fresh(durability: str = "normal", ring: int = 65_536) -> AsyncIterator[Journal]:
    """An empty journal on disk that is removed afterwards; a ring of 1 leaves reads to the disk."""
    options = JournalOptions(durability=durability, ring_records=ring)
    with tempfile.TemporaryDirectory() as folder:
        async with await open_journal(str(Path(folder) / "store.db"), options) as journal:
            yield journal


async def ingest(events: int, batch: int, *, durability: str = "normal", writers: int = 8) -> float:
    """Durable, acknowledged updates a second: several writers, each awaiting its batches."""
    now = datetime.now(UTC)
    updates = [Update(topic=f"orders.{n % 20}", message=TEXT, timestamp=now) for n in range(batch)]
    requests = max(1, events // batch // writers)

    async def write(journal: Journal, name: str) -> None:
        for request in range(1, requests + 1):
            await journal.append_updates(updates, ProducerId(name, request))

    async with fresh(durability) as journal:
        began = time.perf_counter()
        await asyncio.gather(*(write(journal, f"w{n}") for n in range(writers)))
        return requests * batch * writers / (time.perf_counter() - began)


async def resume(journal: Journal, *patterns: str, framed: bool = True) -> float:
    """Updates a second that one reader gets from the store, with the bytes to send if framed."""
    count = 0
    began = time.perf_counter()
    selector = Selector(Stream.UPDATES, patterns)
    async with aclosing(journal.read(selector, Start(all=True), follow=False)) as batches:
        async for batch in batches:
            if framed and batch.items:
                framed_by_handler(batch, selector.stream)
            count += len(batch.items)
    return count / (time.perf_counter() - began)


async def fill(journal: Journal, lines: int) -> None:
    """Log lines of 20 services, and six of one that is rare."""
    entries = [
        LogEntry(service=f"svc{n % 20}", level=LEVELS[n % len(LEVELS)], message=TEXT)
        for n in range(6000)
    ]
    rare = LogEntry(service="rare", level="error", message=TEXT)
    for part in range(max(1, lines // 6000)):
        await journal.append_logs(entries)
        if part < 6:
            await journal.append_logs([rare])


async def find(journal: Journal, services: tuple[str, ...], level: int, last: int) -> float:
    """Milliseconds until the last N lines of services at or above a level are there; best of 5."""
    best = float("inf")
    selector = Selector(Stream.LOGS, services, level)
    for _ in range(5):
        began = time.perf_counter()
        async with aclosing(journal.read(selector, Start(last=last), follow=False)) as batches:
            async for _ in batches:
                pass
        best = min(best, time.perf_counter() - began)
    return best * 1000


async def routing(
    subscribers: int, topics: int, wanted: bool, messages: int = 20_000
) -> tuple[float, float]:
    """CPU microseconds per published message and per delivery, best of 3 rounds.

    Publishes in bursts of 100; every subscriber asks for one topic.
    """
    hub: Hub[Update] = Hub()
    expected = messages * subscribers // topics if wanted else 0
    delivered = started = 0
    all_started, all_delivered = asyncio.Event(), asyncio.Event()

    async def read(topic: str) -> None:
        nonlocal delivered, started
        async with aclosing(hub.subscribe(topic)) as deliveries:
            async for delivery in deliveries:
                if delivery.items:
                    joined_frames(delivery, frame)
                    delivered += len(delivery.items)
                    if delivered >= expected:
                        all_delivered.set()
                else:
                    started += 1
                    if started == subscribers:
                        all_started.set()

    tasks = [asyncio.create_task(read(f"t{n % topics}")) for n in range(subscribers)]
    await all_started.wait()
    update = Update(topic="t", message=TEXT)
    best, per_delivery = float("inf"), 0.0
    for _ in range(3):
        delivered = 0
        all_delivered.clear()
        gc.collect()
        began = time.process_time()
        for number in range(messages):
            hub.publish(f"t{number % topics}" if wanted else "unwanted", update)
            if number % 100 == 99:
                await asyncio.sleep(0)
        if expected:
            await all_delivered.wait()
        spent = time.process_time() - began
        if spent < best:
            best, per_delivery = spent, spent / expected if expected else 0.0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return best / messages * 1e6, per_delivery * 1e6


async def main(events: int, show: Callable[[str], None] = print) -> None:
    """Print every figure."""
    for durability in ("normal", "full"):
        for batch in (1, 100, 1000):
            writers = 100 if batch == 1 else 8
            rate = await ingest(
                events if batch > 1 else events // 20, batch, durability=durability, writers=writers
            )
            show(f"ingest, {durability}, batches of {batch}: {rate:,.0f} acknowledged/s")
    async with fresh(ring=1) as journal:
        updates = [Update(topic=f"orders.{n % 20}", message=TEXT) for n in range(1000)]
        for _ in range(events // 1000):
            await journal.append_updates(updates)
        for patterns in ((), ("orders.>",), ("orders.1", "orders.2", "orders.3")):
            rate = await resume(journal, *patterns)
            show(f"resume of {events:,} from the store, {patterns or 'all'}: {rate:,.0f}/s")
    async with fresh(ring=1) as journal:
        await fill(journal, events)
        for services, level, last in (
            (("svc1",), 0, 100),
            (("svc1",), 3, 100),
            (("rare",), 0, 10),
            (("svc1*",), 2, 100),
            ((), 3, 100),
            (("svc1",), 0, 10_000),
        ):
            spent = await find(journal, services, level, last)
            name = services[0] if services else "every service"
            show(f"last {last} of {name} at level {level} in {events:,}: {spent:.2f} ms")
    for subscribers, topics, wanted in (
        (1, 1, False),
        (1000, 1000, False),
        (1, 1, True),
        (1000, 1000, True),
        (1000, 1, True),
    ):
        messages = 20_000 if subscribers == 1 or topics > 1 or not wanted else 2000
        spent, each = await routing(subscribers, topics, wanted, messages)
        kind = f"{each:.2f} us CPU a delivery" if wanted else "nobody wants them"
        show(f"{subscribers} subscribers on {topics} topics: {spent:.2f} us CPU a message, {kind}")


def bare_ingest(events: int, batch: int) -> float:
    """Rows a second by sqlite3's executemany into the same table, one thread and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        connection = open_store(str(Path(folder) / "store.db"), JournalOptions())
        now = "2026-01-01 00:00:00.000000"
        insert = "insert into updates values(?, ?, ?, ?, ?)"
        began = time.perf_counter()
        for first in range(1, events + 1, batch):
            rows = [(n, f"orders.{n % 20}", now, TEXT, None) for n in range(first, first + batch)]
            connection.execute("begin immediate")
            connection.executemany(insert, rows)
            connection.execute("commit")
        rate = events / (time.perf_counter() - began)
        connection.close()
        return rate


def bare_read(path: str, events: int) -> float:
    """Rows a second by fetchall in pages of 1000, without making anything of them."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    page = "select * from updates where sequence > ? order by sequence limit 1000"
    began = time.perf_counter()
    for after in range(0, events, 1000):
        connection.execute(page, (after,)).fetchall()
    rate = events / (time.perf_counter() - began)
    connection.close()
    return rate


async def read_both(events: int) -> tuple[float, float]:
    async with fresh(ring=1) as journal:
        updates = [Update(topic=f"orders.{n % 20}", message=TEXT) for n in range(1000)]
        for _ in range(events // 1000):
            await journal.append_updates(updates)
        ours = await resume(journal)
        path = (await journal.status()).url
        return ours, await asyncio.to_thread(bare_read, path, events)


def run() -> list[dict[str, Any]]:
    """The rows for `python -m bench`."""
    rows: list[dict[str, Any]] = []

    def row(name: str, unit: str, ours: float, peer: str, figure: float, ratio: float) -> None:
        made = {"name": name, "unit": unit, "ours": ours, "peer": peer, "peer_figure": figure}
        rows.append({**made, "ratio": ratio})

    for batch in (100, 1000):
        ours = max(asyncio.run(ingest(300_000, batch)) for _ in range(3))
        bare = max(bare_ingest(300_000, batch) for _ in range(3))
        row(
            f"durable ingest, batches of {batch}",
            "acknowledged/s",
            ours,
            "bare sqlite3",
            bare,
            ours / bare,
        )
    full = asyncio.run(ingest(300_000, 1000, durability="full"))
    row("the same at durability full", "acknowledged/s", full, "at normal", ours, full / ours)
    ours, bare = asyncio.run(read_both(300_000))
    row("resume from the store, framed", "updates/s", ours, "bare sqlite3", bare, ours / bare)
    one, _ = asyncio.run(routing(1, 1, wanted=False))
    many, _ = asyncio.run(routing(1000, 1000, wanted=False))
    row(
        "a message nobody wants, 1,000 subscribers", "us CPU", many, "1 subscriber", one, one / many
    )
    _, one = asyncio.run(routing(1, 1, wanted=True))
    _, many = asyncio.run(routing(1000, 1, wanted=True, messages=2000))
    row("a delivery, 1,000 on one topic", "us CPU", many, "1 subscriber", one, one / many)
    return rows


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000))
