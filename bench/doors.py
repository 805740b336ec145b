"""Server-sent events and gRPC-Web to one reader and to a thousand, next to FastAPI and connectrpc.

    python -m bench doors

Each reader has a connection of its own, as EventSource and fetch have over HTTP/1.1; over HTTP/2 a
hundred streams share one. One reader takes what is there already, ours from a store on disk, the
peers' made from memory. A thousand wait for what is published: as fast as it goes, one by one (the
next as soon as the last is acknowledged; the peers put it into a queue of each reader), and twenty
a second, where no event waits for another. Servers, readers and our publisher are processes of
their own; the readers count and look at nothing. Rates are by the clock, and once more by the
server's CPU, which says the same on a busy machine. `doors_cost` has what the doors cost, and the
latency.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.wire import ROOT, Row, Server, generate, row, with_connect

__all__ = ["publishing", "reader", "run", "served", "tell", "timed_reader"]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
READERS = 1_000
IDLE = 2_000
FLOOR_ONE, FLOOR_MANY, FLOOR_IDLE = 5.0, 20.0, 32.0
"""How many times the peer's rate ours has to be, for one reader and in fan-out; KiB of an idle
reader."""


class Task(NamedTuple):
    """One way to be read, and how many events of it each server is asked for: some seconds."""

    name: str
    readers: int
    how: str
    events: dict[str, int]
    floor: float


TASKS = (
    Task(
        "to one reader", 1, "",
        {"ours": 200_000, "fastapi": 15_000, "uvicorn": 80_000, "pyvoy": 10_000}, FLOOR_ONE,
    ),
    Task(
        f"to {READERS} readers", READERS, "together",
        {"ours": 1_000, "fastapi": 12, "uvicorn": 60, "pyvoy": 15}, FLOOR_MANY,
    ),
    Task(
        f"to {READERS} readers, one by one", READERS, "one",
        {"ours": 300, "fastapi": 12, "uvicorn": 60, "pyvoy": 15}, FLOOR_MANY,
    ),
    Task(
        f"to {READERS} readers, 20 a second", READERS, "paced 20",
        {"ours": 50, "fastapi": 8, "uvicorn": 50, "pyvoy": 15}, 0,
    ),
)  # fmt: skip


class Contender(NamedTuple):
    """A server, and the door through which it is read."""

    server: str
    door: str


Rates = tuple[float, float]
"""Events per second, and per CPU-second of the server."""


def run() -> list[Row]:
    """Measure all in turns; the best round of each counts."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        events = {"ours": Contender("ours", "events")}
        webs = {"ours": Contender("ours", "web"), "ours, HTTP/2": Contender("ours", "web2")}
        if importlib.util.find_spec("fastapi") is not None:
            events["FastAPI, uvicorn"] = Contender("fastapi", "fastapi")
        if importlib.util.find_spec("connectrpc") is not None:
            webs["connectrpc, uvicorn"] = Contender("uvicorn", "connect")
            if importlib.util.find_spec("zttp") is not None:
                webs["connectrpc, uvicorn, HTTP/2"] = Contender("uvicorn2", "connect2")
        if with_connect():
            webs["connectrpc, pyvoy"] = Contender("pyvoy", "connect")
            webs["connectrpc, pyvoy, HTTP/2"] = Contender("pyvoy", "connect2")
        rows = []
        for what, contenders in (("events", events), ("gRPC-Web", webs)):
            rows += _compared(what, contenders)
            print(f"  {what} measured", file=sys.stderr, flush=True)
        return [*rows, *_idle()]


def _compared(what: str, contenders: dict[str, Contender]) -> list[Row]:
    found: dict[tuple[str, str], Rates] = {}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            with served(contender.server, TASKS[0].events[contender.server.rstrip("2")]) as server:
                for task in TASKS:
                    rates = _measured(server, contender, task)
                    best = found.get((name, task.name), (0.0, 0.0))
                    found[name, task.name] = (max(best[0], rates[0]), max(best[1], rates[1]))
    rows = []
    for task in TASKS:
        for ours in [name for name in contenders if name.startswith("ours")]:
            which = f"{what}{ours.removeprefix('ours')}"
            peers = [name for name in contenders if not name.startswith("ours")]
            for name in peers or [ours]:
                for unit, at in (("a second", 0), ("a CPU-second", 1)):
                    if task.how.startswith("paced") and at == 0:
                        continue  # it is as fast as it is asked to be
                    mine, theirs = found[ours, task.name][at], found[name, task.name][at]
                    rows.append(row(f"{which} {task.name}", unit, mine, name, theirs, task.floor))
    return rows


@contextmanager
def served(stack: str, *words: object) -> Iterator[Server]:
    """A server program, for the time of the block."""
    command = [sys.executable, "-m", "bench.stacks.events", stack, *map(str, words)]
    if stack in ("uvicorn", "uvicorn2"):
        command = [sys.executable, "-m", "bench.stacks.events_connect", stack]
    elif stack == "pyvoy":
        voy = str(Path(sys.executable).parent / "pyvoy")
        command = [voy, "bench.stacks.events_connect:app", "--port", "0", "--log-level", "info"]
        command += ["--loop", "asyncio"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "BENCH_EVENTS": str(words[0])},
        stderr=subprocess.STDOUT if stack == "pyvoy" else None, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if stack != "pyvoy" or "listening" in line.lower():
                    yield Server(process, int(line.rstrip().rstrip("/").rpartition(":")[2]))
                    break
            else:
                raise SystemExit(f"{stack} did not start")
        finally:
            process.kill()


def _measured(server: Server, contender: Contender, task: Task) -> Rates:
    stack, door = contender
    events = task.events[stack.rstrip("2")]
    peer = door.startswith("connect")
    making: subprocess.Popen[str] | None = None
    topic = "live"
    if task.readers == 1:
        topic = "orders" if peer else "orders.*"
    before = _cpu(server)
    reading = reader(server, door, topic, task.readers, events)
    assert reading.stdout is not None
    if task.readers > 1:
        assert reading.stdout.readline() == "ready\n"
        if stack == "ours":
            making = publishing(server)
        before = _cpu(server)
        if peer:
            making = reader(server, "connect", f"make/{events}|{task.how}", 1, 1)
        else:
            tell(making or server.process, f"{events} {task.how}")
    rate: float = json.loads(reading.communicate()[0])
    if making is not None:
        making.kill()
        making.communicate()
    return rate, task.readers * events / max(_cpu(server) - before, 0.01)


def publishing(server: Server) -> subprocess.Popen[str]:
    """A program that publishes at our server what it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.stacks.events", "publish", str(server.port)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def tell(process: subprocess.Popen[str], words: str) -> None:
    """Give a program a line."""
    assert process.stdin is not None
    process.stdin.write(words + "\n")
    process.stdin.flush()


def _cpu(server: Server) -> float:
    """CPU seconds of a server and the processes that it has started."""
    own = psutil.Process(server.process.pid)
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def reader(
    server: Server, door: str, topic: str, readers: int, events: int
) -> subprocess.Popen[str]:
    """A program that reads as so many readers, and prints what it finds."""
    return _program("read", server.port, door, topic, readers, events)


def timed_reader(server: Server, readers: int, events: int) -> subprocess.Popen[str]:
    """A program that reads our events, and prints how old they were."""
    return _program("latency", server.port, readers, events)


def _program(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.stacks.event_readers", *map(str, words)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _idle() -> list[Row]:
    """What an idle reader of events costs, with a connection of its own."""
    with served("ours", 10) as server:
        sizes = []
        for readers in (100, IDLE):  # what the first ones load is not theirs
            with reader(server, "events", "live", readers, 0) as reading:
                assert reading.stdout is not None
                assert reading.stdout.readline() == "ready\n"
                sizes.append(server.memory)
                reading.communicate("")
        each = (sizes[1] - sizes[0]) / (IDLE - 100) / 1024
    name = f"an idle reader of events, of {IDLE}"
    return [row(name, "KiB", each, "the bound", FLOOR_IDLE, 1, less=True)]
