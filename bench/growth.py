"""What the same thing costs in a small store and in a large one.

    python -m bench growth
    python -m bench.growth [records ...]

A store of so many updates and as many log lines is written directly, then opened as a journal.
Each figure stands next to what sqlite3 takes bare for the same rows, with the obvious index, and
each growth next to the bound that it is held to: three times, from the smallest store to the
largest. Times are the best of several, wall clock; what is removed is counted per record.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from streamkit.config import JournalOptions, Retention
from streamkit.generated.streamservice import JobReport, Update
from streamkit.journal import Hub, Selector, Start, Stream, open_journal
from streamkit.journal.live.engine import EngineJournal
from streamkit.journal.records.items import text_of

__all__ = ["main", "run"]

SIZES = (10_000, 5_000_000)
JOBS = (100, 1_000_000)
RUNNING = 100_000
READERS = (1, 5_000)
BOUND = 3.0
KEEP_ALL = JournalOptions(retention=Retention(max_age=0, max_bytes=0))

Figures = dict[str, float]


async def opened(path: str, options: JournalOptions = KEEP_ALL) -> EngineJournal:
    journal = await open_journal(path, options)
    assert isinstance(journal, EngineJournal)
    return journal


def fill(path: str, count: int) -> datetime:
    """An hour of updates and log lines, 40 of them rare, and the time it began."""
    end = datetime.now(UTC) - timedelta(seconds=5)
    began = end - timedelta(hours=1)
    seconds = [text_of(began + timedelta(seconds=n)) for n in range(3601)]
    every = max(1, count // 40)

    def updates() -> Any:
        for n in range(count):
            topic = "rare.topic" if n % every == every // 2 else f"t.{n % 1000}"
            yield n + 1, topic, seconds[n * 3600 // count], "x" * 80, None

    def logs() -> Any:
        for n in range(count):
            service = "rare" if n % every == every // 2 else f"svc-{n % 50}"
            level = ("error", 3) if n % every == 7 else ("info", 1)
            yield n + 1, service, *level, seconds[n * 3600 // count], "y" * 80, None

    connection = sqlite3.connect(path)
    execute = connection.execute
    execute("pragma synchronous = off")
    connection.executemany("insert into updates values(?, ?, ?, ?, ?)", updates())
    connection.executemany("insert into logs values(?, ?, ?, ?, ?, ?, ?)", logs())
    execute("insert into log_levels select severity, sequence from logs")
    first: dict[int, int] = {}
    for n in range(count):
        first.setdefault(n * 3600 // count, n + 1)
    for stream in ("updates", "logs"):
        rows = ((stream, sequence, seconds[second]) for second, sequence in first.items())
        connection.executemany("insert into marks values(?, ?, ?)", rows)
    execute("delete from meta where key like 'bytes.%'")
    connection.commit()
    execute("pragma wal_checkpoint(truncate)").fetchall()
    connection.close()
    return began


async def best_ms(work: Callable[[], Awaitable[object]], times: int = 15) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        found.append((time.perf_counter() - began) * 1000)
    return min(found)


async def taken(journal: EngineJournal, selector: Selector, start: Start, most: int = 1) -> None:
    """The first records that a reader gets."""
    count = 0
    async with aclosing(journal.read(selector, start, follow=False)) as batches:
        async for batch in batches:
            count += len(batch.items)
            if count >= most:
                break
    assert count, selector


async def ours(path: str, began: datetime) -> Figures:
    """The journal's figures on one store."""
    found: Figures = {}

    async def start() -> None:
        async with await opened(path):
            pass

    found["start"] = await best_ms(start, 3)
    rare, every = Selector(Stream.UPDATES, ("rare.*",)), Selector(Stream.UPDATES, (">",))
    errors = Selector(Stream.LOGS, (), 3)
    many = Selector(Stream.UPDATES, ("*.topic",))
    async with await opened(path) as journal:
        asked: dict[str, tuple[Selector, Start, int]] = {
            "last 100 errors": (errors, Start(last=40), 40),
            "last 100 of a service": (Selector(Stream.LOGS, ("rare",)), Start(last=40), 40),
            "last 100 of ra*": (Selector(Stream.LOGS, ("ra*",)), Start(last=40), 40),
            "last 10 of rare.*": (rare, Start(last=10), 10),
            "last 10 of *.topic": (many, Start(last=10), 10),
            "all 40 of rare.*": (rare, Start(all=True), 40),
            "all 40 errors": (errors, Start(all=True), 40),
            "since half an hour": (every, Start(since=began + timedelta(minutes=30)), 1),
        }
        for name, what in asked.items():
            found[name] = await best_ms(lambda what=what: taken(journal, *what))  # type: ignore[misc]  # a lambda's default
        found["publish"] = await best_ms(
            lambda: journal.append_updates([Update(topic="t.1", message="x" * 80)]), 200
        )
        found["status"] = await best_ms(journal.status)
    return found


def stock(path: str, began: datetime) -> Figures:
    """The same questions to sqlite3 bare."""
    connection = sqlite3.connect(path)
    half = text_of(began + timedelta(minutes=30))
    rare = "topic >= 'rare.' and topic < 'rare/'"
    asked = {
        "last 100 errors": "select * from logs where severity = 3 order by sequence desc limit 40",
        "last 100 of a service": "select * from logs where service = 'rare' order by sequence desc"
        " limit 40",
        "last 100 of ra*": "select * from logs where service >= 'ra' and service < 'rb'"
        " order by sequence desc limit 40",
        "last 10 of rare.*": f"select * from updates where {rare} order by sequence desc limit 10",
        "last 10 of *.topic": "select * from updates where topic glob '*.topic'"
        " order by sequence desc limit 10",
        "all 40 of rare.*": f"select * from updates where {rare} order by sequence",
        "all 40 errors": "select * from logs where severity = 3 order by sequence",
        "since half an hour": "select * from updates where time >= ? order by time limit 1",
    }
    connection.execute("create index if not exists obvious_level on logs(severity, sequence)")
    connection.execute("create index if not exists obvious_time on updates(time)")
    connection.commit()
    found: Figures = {}
    for name, sql in asked.items():
        times = []
        for _ in range(5):
            before = time.perf_counter()
            connection.execute(sql, (half,) if "?" in sql else ()).fetchall()
            times.append((time.perf_counter() - before) * 1000)
        found[name] = min(times)
    connection.execute("drop index obvious_level")
    connection.execute("drop index obvious_time")
    connection.commit()
    connection.close()
    return found


async def removal(path: str, count: int, size: int) -> float:
    """Microseconds for each record that retention removes, a fifth of a store at once."""
    options = JournalOptions(retention=Retention(max_age=0, max_bytes=int(size * 0.8)))
    async with await opened(path, options) as journal:
        began = time.perf_counter()
        await journal.sweep()
        seconds = time.perf_counter() - began
        removed = sum(journal.bounds(stream).oldest - 1 for stream in Stream)
    assert removed > count // 10, removed
    return seconds * 1e6 / removed


async def beside_jobs(path: str, count: int, status: str) -> float:
    """The p99 of a publish, in milliseconds, while so many jobs are stored."""
    options = JournalOptions(retention=Retention(max_bytes=0))
    async with await opened(path, options) as journal:
        await journal.report_jobs([JobReport(job_id="first", heartbeat=timedelta(seconds=60))])
    tool = sqlite3.connect(path)
    now = text_of(datetime.now(UTC))
    tool.execute("pragma synchronous = off")
    own = {"job_id", "sequence", "status", "created_at", "updated_at", "reported_at"}
    names = [row[1] for row in tool.execute("pragma table_info(jobs)")]
    rest = ", ".join(name for name in names if name not in own)
    tool.executemany(
        f"insert into jobs(job_id, sequence, status, created_at, updated_at, reported_at, {rest})"
        f" select ?, ?, ?, ?, ?, ?, {rest} from jobs where job_id = 'first'",
        ((f"job-{n:08}", n + 2, status, now, now, now) for n in range(count)),
    )
    tool.execute("insert or replace into meta values('next.jobs', ?)", (count + 2,))
    tool.commit()
    tool.close()
    times = []
    async with await opened(path, options) as journal:
        end = time.perf_counter() + 6
        while time.perf_counter() < end:  # some sweeps of one second each
            began = time.perf_counter()
            await journal.append_updates([Update(topic="a", message="x")])
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.002)
    return sorted(times)[len(times) * 99 // 100]


async def new_topic(readers: int) -> float:
    """Microseconds to route a topic that was never seen past so many readers' patterns."""
    hub: Hub[str] = Hub()
    subscriptions = [hub.subscribe(f"s.{n}.*") for n in range(readers)]
    for subscription in subscriptions:
        await anext(subscription)
    times = []
    for n in range(300):
        began = time.perf_counter()
        hub.publish(f"fresh.{n}.x", "")
        times.append((time.perf_counter() - began) * 1e6)
    for subscription in subscriptions:
        await subscription.aclose()
    return statistics.median(times)


def measured(sizes: tuple[int, ...], folder: str) -> dict[int, tuple[Figures, Figures]]:
    found = {}
    for size in sizes:
        path = f"{folder}/{size}.db"

        async def make(path: str = path) -> None:
            async with await opened(path):
                pass

        asyncio.run(make())
        began = fill(path, size)
        mine = asyncio.run(ours(path, began))
        bare = stock(path, began)
        mine["remove a record"] = asyncio.run(removal(path, size, os.path.getsize(path)))
        found[size] = (mine, bare)
        for file in Path(folder).glob("*"):
            file.unlink()
        print(f"{size:,}: {json.dumps({k: round(v, 2) for k, v in mine.items()})}", file=sys.stderr)
    return found


def run(sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """The rows of the table."""
    rows: list[dict[str, Any]] = []

    def grown(name: str, unit: str, small: float, large: float) -> None:
        factor = large / small
        rows.append(
            {
                "name": f"{name}: growth",
                "unit": f"x ({small:.3g} -> {large:.3g} {unit})",
                "ours": factor,
                "peer": "the bound",
                "peer_figure": BOUND,
                "ratio": BOUND / factor,
                "floor": 1.0,
            }
        )

    with tempfile.TemporaryDirectory() as folder:
        found = measured(sizes, folder)
        small, large = found[sizes[0]][0], found[sizes[-1]][0]
        for name, figure in found[sizes[-1]][1].items():
            rows.append(
                {
                    "name": f"{name} in {sizes[-1]:,}",
                    "unit": "ms",
                    "ours": large[name],
                    "peer": "sqlite3 bare, indexed",
                    "peer_figure": figure,
                    "ratio": figure / large[name],
                }
            )
        for name, figure in small.items():
            grown(name, "us" if name.startswith("remove") else "ms", figure, large[name])
        few = asyncio.run(beside_jobs(f"{folder}/few.db", JOBS[0], "completed"))
        many = asyncio.run(beside_jobs(f"{folder}/many.db", JOBS[1], "completed"))
        live = asyncio.run(beside_jobs(f"{folder}/live.db", RUNNING, "running"))
        grown(f"publish p99, {JOBS[1]:,} ended jobs", "ms", few, many)
        grown(f"publish p99, {RUNNING:,} running jobs", "ms", few, live)
    one, crowd = (asyncio.run(new_topic(count)) for count in READERS)
    grown(f"a new topic, {READERS[1]:,} wildcard readers", "us", one, crowd)
    return rows


def main() -> None:
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    for row in run(sizes):
        print(
            f"{row['name']:48} {row['ours']:10.2f} {row['unit']:32}"
            f" {row['peer']:24} {row['peer_figure']:10.2f}"
        )


if __name__ == "__main__":
    main()
