"""What the doors cost: those who do not use them, and in time those who do.

    python -m bench doors_cost

Plain gRPC at a server with doors and at one without: both run at the same time and take many short
turns, so that both see the same machine, on a core that they do not share with the clients. A
process is a little slower or faster than another of the same program for its whole life, by where
its memory came to lie; so several pairs of them are measured. What is compared is the server's
processor time for a message: the median of the turns of a pair, then the mean of the pairs, with
the standard error of that mean.

Then how long an update takes from being published to the readers of events, fifty a second, with
the merging of wake-ups (where many readers wait, the next wake-up waits as long as the last took)
and without it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import access, doors
from bench.wire import Row, row
from streamkit.client import AsyncClient, last
from streamkit.transport import run as run_loop

__all__ = ["run"]

FLOOR = 0.99
"""What plain gRPC may lose."""
PAIRS = 10
TURNS = 16
PUBLISHED = 3_000
READ = 30_000
CALLS = 100
A_SECOND = 50
SECONDS = 4


def run() -> list[Row]:
    """Measure and return the rows of the table."""
    return [*_plain(), *_latencies()]


# Plain gRPC -------------------------------------------------------------------------------------


async def _publish(client: AsyncClient) -> int:
    async with client.publisher() as publisher:
        for number in range(PUBLISHED):
            await publisher.send(f"orders.{number % 50}", "x" * 80)
    return PUBLISHED


async def _subscribe(client: AsyncClient) -> int:
    seen = 0
    async with client.subscribe("orders.>", start=last(READ)) as updates:
        while seen < READ:
            seen += len(await updates.receive())
    return seen


async def _call(client: AsyncClient) -> int:
    for _ in range(CALLS):
        await client.publish("orders.one", "x" * 80)
    return CALLS


_WORK: dict[str, Callable[[AsyncClient], Awaitable[int]]] = {
    "published by a pipeline": _publish,
    "read by a subscriber": _subscribe,
    "single calls": _call,
}


def _plain() -> list[Row]:
    ratios: dict[str, list[float]] = {name: [] for name in _WORK}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in _WORK}
    for _ in range(PAIRS):
        for name, (on, off) in _pair().items():
            ratios[name].append(off / on)
            spent[name].append((on, off))
    rows = []
    for name, found in ratios.items():
        error = statistics.stdev(found) / len(found) ** 0.5
        on, off = (statistics.fmean(times) for times in zip(*spent[name], strict=True))
        what = f"plain gRPC with doors on, {name}"
        one = row(what, "us of server time each", on, "off", off, FLOOR, less=True)
        one["ratio"] = round(statistics.fmean(found), 4)
        one["error"] = round(error, 4)
        print(f"  {name}: {one['ratio']} +- {error:.4f}", file=sys.stderr, flush=True)
        rows.append(one)
    return rows


def _pair() -> dict[str, tuple[float, float]]:
    """The microseconds of server time, with doors and without, of a new pair of servers."""
    with tempfile.TemporaryDirectory() as name:
        folders = {on: Path(name, str(on)) for on in (True, False)}
        for folder in folders.values():
            folder.mkdir()
        servers = {
            on: access.Server(folder, *(["--web"] if on else [])) for on, folder in folders.items()
        }
        cores = sorted(os.sched_getaffinity(0))
        try:
            if len(cores) > 1:
                os.sched_setaffinity(0, cores[1:])
                for server in servers.values():
                    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
                        os.sched_setaffinity(int(task.name), cores[:1])
            return run_loop(_turns(servers))
        finally:
            os.sched_setaffinity(0, cores)
            for server in servers.values():
                server.stop()


async def _turns(servers: dict[bool, access.Server]) -> dict[str, tuple[float, float]]:
    spent: dict[str, dict[bool, list[float]]] = {name: {True: [], False: []} for name in _WORK}
    async with AsyncClient(servers[True].address) as on, AsyncClient(servers[False].address) as off:
        clients = {True: on, False: off}
        for client in clients.values():
            for _ in range(READ // PUBLISHED):
                await _publish(client)
        for turn in range(TURNS):
            for name, work in _WORK.items():
                for which in (True, False) if turn % 2 else (False, True):
                    began = servers[which].seconds()
                    count = await work(clients[which])
                    await asyncio.sleep(0.02)  # what is still being written
                    if turn > 1:  # the first ones warm up
                        took = servers[which].seconds() - began
                        spent[name][which].append(1e6 * took / count)
    return {
        name: (statistics.median(both[True]), statistics.median(both[False]))
        for name, both in spent.items()
    }


# Latency ------------------------------------------------------------------------------------------


def _latencies() -> list[Row]:
    rows = []
    for readers in (1, 64, 1_000):
        found = {how: _latency(readers, *how) for how in ((), ("unmerged",))}
        for which in ("p50", "p99"):
            name = f"{which} to {readers} readers of events, {A_SECOND} a second"
            mine, theirs = found[()][which], found[("unmerged",)][which]
            rows.append(row(name, "ms", mine, "each event for itself", theirs, 0, less=True))
    print("  latency measured", file=sys.stderr, flush=True)
    return rows


def _latency(readers: int, *how: str) -> dict[str, float]:
    """The milliseconds of a server with so many readers."""
    events = A_SECOND * SECONDS
    with doors.served("ours", 10, *how) as server:
        reading = doors.timed_reader(server, readers, events)
        assert reading.stdout is not None and reading.stdout.readline() == "ready\n"
        with doors.publishing(server) as making:
            doors.tell(making, f"{events} stamped {A_SECOND}")
            found: dict[str, float] = json.loads(reading.communicate()[0])
            making.kill()
        return found
