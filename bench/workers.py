"""Fan-out by one process, and by two and four workers: what a delivery costs all of them together.

    python -m bench workers
    python -m bench.workers [messages]

Each message is published when all subscribers have the one before, so that each wakes every
subscriber once, however busy the machine is. Deliveries are counted by the clients; CPU is that of
every process of the server. The last row is what the process
that owns the store spends on a record for one worker more, beside what it spends without.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.wire import ROOT, TICK, Row, row
from streamkit.client import AsyncClient
from streamkit.config import JournalOptions
from streamkit.generated.streamservice import Update
from streamkit.journal import ProducerId, open_journal
from streamkit.journal.base import now
from streamkit.journal.following.feed import Feed
from streamkit.journal.following.follower import FollowerJournal
from streamkit.journal.sqlite.journal import SqliteJournal

__all__ = ["run"]

MESSAGES = 250
SUBSCRIBERS = 400
READERS = 2
"""Processes that the subscribers are divided among."""
ROUNDS = 2
FLOOR = 0.85
RECORDS = 200_000
MOST = 1.5
TEXT = "x" * 80


def run(messages: int = MESSAGES) -> list[Row]:
    """Measure in turns; the best round of each counts."""
    best: dict[int, float] = {}
    for _ in range(ROUNDS):
        for workers in (0, 2, 4):
            found = deliveries(workers, messages)
            best[workers] = max(best.get(workers, 0.0), found)
            print(f"  {workers or 'no'} workers: {found:,.0f}", file=sys.stderr, flush=True)
    rows = [
        row(
            f"fan-out to {SUBSCRIBERS} by {workers} workers",
            "deliveries/CPU-second",
            best[workers],
            "one process",
            best[0],
            FLOOR,
        )
        for workers in (2, 4)
    ]
    spent = {n: min(asyncio.run(owning(n)) for _ in range(3)) for n in (0, 1, 2)}
    for workers in (1, 2):
        more = (spent[workers] - spent[0]) / workers
        name = f"the owner's cost for each of {workers} workers"
        rows.append(row(name, "us CPU a record", more, "the bound", MOST, 1.0, less=True))
    return rows


# Fan-out ------------------------------------------------------------------------------------------


def deliveries(workers: int, messages: int) -> float:
    """Deliveries for each second of CPU of all processes of a server."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        options = ["--workers", str(workers)] if workers else []
        server, address = stack.enter_context(streamkit(f"{folder}/store.db", *options))
        words = [address, str(SUBSCRIBERS // READERS), str(messages)]
        readers = [stack.enter_context(program("read", *words)) for _ in range(READERS)]
        for reader in readers:
            assert line_of(reader) == "ready"
        before = cpu_of_all(server.pid)
        asyncio.run(publish(address, messages, readers))
        return SUBSCRIBERS * messages / (cpu_of_all(server.pid) - before)


async def publish(address: str, messages: int, readers: list[subprocess.Popen[str]]) -> None:
    """One after the other: each is a wake-up of its own."""
    async with AsyncClient(address) as client:
        for number in range(messages):
            await client.publish("fan.out", f"{number} {TEXT}")
            told = await asyncio.gather(*(asyncio.to_thread(line_of, each) for each in readers))
            assert told == [f"{number}"] * len(readers), told


async def read(address: str, subscribers: int, messages: int) -> None:
    """Subscribers of one process, each with a connection of its own; says which message all of
    them have."""
    ready = delivered = 0
    all_ready = asyncio.Event()

    async def follow() -> None:
        nonlocal ready, delivered
        async with AsyncClient(address) as client, client.subscribe("fan.>") as updates:
            ready += 1
            if ready == subscribers:
                all_ready.set()
            count = 0
            while count < messages:
                some = len(await updates.receive())
                count += some
                delivered += some
                if delivered % subscribers == 0:
                    print(delivered // subscribers - 1, flush=True)

    following = [asyncio.create_task(follow()) for _ in range(subscribers)]
    await all_ready.wait()
    print("ready", flush=True)
    await asyncio.gather(*following)


@contextmanager
def streamkit(store: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`streamkit serve`, and its address once all of it serves."""
    command = [
        sys.executable,
        "-m",
        "streamkit",
        "serve",
        "--store",
        store,
        "--port",
        "0",
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process, line_of(process, process.stderr).split()[-1]
        finally:
            process.terminate()


@contextmanager
def program(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.workers", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str], output: Any = None) -> str:
    source = output or process.stdout
    assert source is not None
    text: str = source.readline()
    if not text:
        raise SystemExit(f"process {process.pid} has ended")
    return text.strip()


def cpu_of_all(pid: int) -> float:
    """CPU seconds of a process and those that it has started."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended just now
        if int(entry.name) == pid or int(stat[1]) == pid:
            total += (int(stat[11]) + int(stat[12])) / TICK
    return total


# The owner ----------------------------------------------------------------------------------------


async def owning(workers: int) -> float:
    """Microseconds of CPU that an owner with so many workers spends on a record."""
    with tempfile.TemporaryDirectory() as folder:
        async with await open_journal(f"{folder}/store.db") as journal:
            assert isinstance(journal, SqliteJournal)
            feed = Feed(journal)
            following = []
            for _ in range(workers):
                ours, theirs = socket.socketpair()
                with theirs:
                    command = [
                        sys.executable,
                        "-m",
                        "bench.workers",
                        "follow",
                        str(theirs.fileno()),
                    ]
                    following.append(
                        await asyncio.create_subprocess_exec(
                            *command,
                            cwd=ROOT,
                            pass_fds=[theirs.fileno()],
                            stdout=asyncio.subprocess.PIPE,
                        )
                    )
                await feed.join(ours)
            for process in following:
                assert process.stdout is not None
                assert await process.stdout.readline()
            updates = [Update(topic=f"orders.{n % 20}", message=TEXT) for n in range(100)]

            async def write(name: str) -> None:
                for request in range(1, RECORDS // 100 // 8 + 1):
                    await journal.append_updates(updates, ProducerId(name, request))

            began = time.process_time()
            await asyncio.gather(*(write(f"w{n}") for n in range(8)))
            spent = time.process_time() - began
            jumps = sum(follower.jumps for follower in feed.followers)
            if jumps:
                print(f"  {jumps} jumps: less was sent", file=sys.stderr)
            await feed.close()
            for process in following:
                await process.wait()
    return spent / RECORDS * 1e6


async def follow(number: int) -> None:
    sock = socket.socket(fileno=number)
    journal = await FollowerJournal.join(sock, JournalOptions(), now, time.monotonic)
    gone = asyncio.Event()
    journal.on_owner_lost = gone.set
    print("ready", flush=True)
    await gone.wait()
    await journal.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read", address, subscribers, messages]:
            asyncio.run(read(address, int(subscribers), int(messages)))
        case ["follow", number]:
            asyncio.run(follow(int(number)))
        case words:
            os.environ.setdefault("PYTHONUNBUFFERED", "1")
            for each in run(*map(int, words)):
                print(json.dumps(each))
