"""Server-sent events to one reader and to many, next to FastAPI's own on uvicorn.

    python -m bench doors

Ours come from a store on disk and are resumable, the peer's are made from memory. Servers and
readers are processes of their own; the readers count events and look at nothing.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from bench.wire import ROOT, Row, row

__all__ = ["run"]

EVENTS = 20_000
LIVE = 100
TOGETHER = 1_000
READERS = 200
ROUNDS = 2
ONE, MANY = 5.0, 20.0
"""How many times the peer's rate ours has to be: for one reader, and in fan-out."""


def run() -> list[Row]:
    """Measure both in turns; the best round of each counts."""
    peer = importlib.util.find_spec("fastapi") is not None
    stacks = ["ours", "fastapi"] if peer else ["ours"]
    one: dict[str, list[float]] = {stack: [] for stack in stacks}
    single: dict[str, list[float]] = {stack: [] for stack in stacks}
    many: dict[str, list[float]] = {stack: [] for stack in stacks}
    for _ in range(ROUNDS):
        for stack in stacks:
            for found, figure in zip((one, single, many), _measure(stack), strict=True):
                found[stack].append(figure)
    name = "FastAPI, uvicorn" if peer else "none"
    other = "fastapi" if peer else "ours"
    return [
        row("events to one reader", "events/s", max(one["ours"]), name, max(one[other]), ONE),
        row(
            f"to {READERS} readers, published one by one", "deliveries/s",
            max(single["ours"]), name, max(single[other]), 0,
        ),
        row(
            f"to {READERS} readers, published as a stream", "deliveries/s",
            max(many["ours"]), name, max(many[other]), MANY,
        ),
    ]  # fmt: skip


def _measure(stack: str) -> tuple[float, float, float]:
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.stacks.events", stack, str(EVENTS)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None and server.stdin is not None
    try:
        port = server.stdout.readline().strip()
        paths = ("/v1/updates?all=1&topic=orders.*", "/v1/updates?topic=live")
        everything, live = paths if stack == "ours" else ("/all", "/live")
        alone = json.loads(_reader(port, everything, 1, EVENTS).communicate()[0])
        single = _fan_out(server, port, live, LIVE, f"1 by 1 {LIVE}")
        together = _fan_out(server, port, live, TOGETHER, str(TOGETHER))
        return alone, single, together
    finally:
        server.kill()
        server.communicate()


def _reader(port: str, path: str, readers: int, events: int) -> subprocess.Popen[str]:
    words = ["read", port, path, str(readers), str(events)]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.stacks.events", *words],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _fan_out(
    server: subprocess.Popen[str], port: str, path: str, events: int, command: str
) -> float:
    readers = _reader(port, path, READERS, events)
    assert readers.stdout is not None and server.stdin is not None
    assert readers.stdout.readline() == "ready\n"
    server.stdin.write(f"{command}\n")
    server.stdin.flush()
    found: float = json.loads(readers.stdout.readline())
    readers.wait()
    return found
