"""Server-sent events and gRPC-Web to one reader and to many, next to FastAPI and connectrpc.

    python -m bench doors

Ours come from a store on disk and are resumable, the peers' are made from memory. Servers and
readers are processes of their own; the readers count events and look at nothing. Rates are by the
clock, and once more by the server's CPU, which says the same on a busy machine.
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

import psutil

from bench import access
from bench.wire import ROOT, Row, Server, generate, row, with_connect
from streamkit.transport import run as run_loop

__all__ = ["run"]

EVENTS = 20_000
ROUNDS = 2
READERS = 200
MANY = 1_000
IDLE = 2_000
FLOOR_ONE, FLOOR_MANY, FLOOR_IDLE, FLOOR_PLAIN = 5.0, 20.0, 32.0, 0.99
"""How many times the peer's rate ours has to be, for one reader and in fan-out; KiB of an idle
reader; and what plain gRPC may lose."""

Rates = tuple[float, float]
"""Events per second, and per CPU-second of the server."""


def run() -> list[Row]:
    """Measure all in turns; the best round of each counts."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        os.environ |= {"BENCH_SCHEMA": folder, "BENCH_EVENTS": str(EVENTS)}
        doors = {"ours": "events"}
        webs = {"ours": "web"}
        if importlib.util.find_spec("fastapi") is not None:
            doors["FastAPI, uvicorn"] = "fastapi"
        if importlib.util.find_spec("connectrpc") is not None:
            webs["connectrpc, uvicorn"] = "connect-uvicorn"
        if with_connect():
            webs["connectrpc, pyvoy"] = "connect-pyvoy"
        rows = []
        for what, contenders in (("events", doors), ("gRPC-Web", webs)):
            rows += _compared(what, contenders)
            print(f"  {what} measured", file=sys.stderr, flush=True)
        return [*rows, *_idle(), *_plain()]


def _compared(what: str, contenders: dict[str, str]) -> list[Row]:
    tasks = {
        f"{what} to one reader": (1, EVENTS, ""),
        f"{what} to {READERS} readers, one by one": (READERS, 100, "1 by 1"),
        f"{what} to {READERS} readers, as a stream": (READERS, 200, "together"),
        f"{what} to {MANY} readers, as a stream": (MANY, 40, "together"),
    }
    found: dict[tuple[str, str], Rates] = {}
    for _ in range(ROUNDS):
        for name, stack in contenders.items():
            with _served(stack) as server:
                for task, (readers, events, how) in tasks.items():
                    rates = _measured(server, stack, readers, events, how)
                    best = found.get((name, task), (0.0, 0.0))
                    found[name, task] = (max(best[0], rates[0]), max(best[1], rates[1]))
    rows = []
    for task, (readers, _, _) in tasks.items():
        floor = FLOOR_ONE if readers == 1 else FLOOR_MANY
        for name in [other for other in contenders if other != "ours"] or ["ours"]:
            for unit, at in (("a second", 0), ("a CPU-second", 1)):
                ours, peer = found["ours", task][at], found[name, task][at]
                rows.append(row(task, unit, ours, name, peer, floor))
    return rows


@contextmanager
def _served(stack: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.stacks.events", stack, str(EVENTS)]
    if stack in ("events", "web"):
        command[3] = "ours"
    elif stack == "connect-uvicorn":
        command = [sys.executable, "-m", "bench.stacks.events_connect", "uvicorn"]
    elif stack == "connect-pyvoy":
        voy = str(Path(sys.executable).parent / "pyvoy")
        command = [voy, "bench.stacks.events_connect:app", "--port", "0", "--log-level", "info"]
        command += ["--loop", "asyncio"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if stack == "connect-pyvoy" else None, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if stack != "connect-pyvoy" or "listening" in line.lower():
                    yield Server(process, int(line.rstrip().rstrip("/").rpartition(":")[2]))
                    break
            else:
                raise SystemExit(f"{stack} did not start")
        finally:
            process.kill()


def _measured(server: Server, stack: str, readers: int, events: int, how: str) -> Rates:
    door = {"connect-uvicorn": "connect", "connect-pyvoy": "connect"}.get(stack, stack)
    before = _cpu(server)
    making: subprocess.Popen[str] | None = None
    topic = "live"
    if readers == 1:
        topic = "orders" if door == "connect" else "orders.*"
    reading = _reader(server, door, topic, readers, events)
    assert reading.stdout is not None and server.process.stdin is not None
    if readers > 1:
        assert reading.stdout.readline() == "ready\n"
        before = _cpu(server)
        if door == "connect":
            making = _reader(server, door, f"make/{events}|{how}", 1, 1)
        else:
            one = "1 by 1 " if how == "1 by 1" else ""
            server.process.stdin.write(f"{one}{events}\n")
            server.process.stdin.flush()
    rate: float = json.loads(reading.communicate()[0])
    if making is not None:
        making.kill()
        making.communicate()
    return rate, readers * events / max(_cpu(server) - before, 0.01)


def _cpu(server: Server) -> float:
    """CPU seconds of a server and the processes that it has started."""
    own = psutil.Process(server.process.pid)
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def _reader(
    server: Server, door: str, topic: str, readers: int, events: int
) -> subprocess.Popen[str]:
    words = ["read", str(server.port), door, topic, str(readers), str(events)]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.stacks.events", *words],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _idle() -> list[Row]:
    """What an idle reader of events costs, with a connection of its own."""
    with _served("events") as server:
        sizes = []
        for readers in (100, IDLE):  # what the first ones load is not theirs
            with _reader(server, "events", "live", readers, 0) as reading:
                assert reading.stdout is not None
                assert reading.stdout.readline() == "ready\n"
                sizes.append(server.memory)
                reading.communicate("")
        each = (sizes[1] - sizes[0]) / (IDLE - 100) / 1024
    name = f"an idle reader of events, of {IDLE}"
    return [row(name, "KiB", each, "the bound", FLOOR_IDLE, 1, less=True)]


def _plain() -> list[Row]:
    """What the doors cost those that do not use them."""
    with tempfile.TemporaryDirectory() as name:
        folders = {on: Path(name, str(on)) for on in (True, False)}
        for folder in folders.values():
            folder.mkdir()
        servers = {
            on: access.Server(folder, *(["--web"] if on else [])) for on, folder in folders.items()
        }
        try:
            return run_loop(access.measure(servers, None, "plain gRPC with doors", FLOOR_PLAIN))
        finally:
            for server in servers.values():
                server.stop()
