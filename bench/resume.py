"""A million updates resumed from a store by one client, next to grpc.aio streaming from memory.

    python -m bench resume
    python -m bench.resume [updates]

Ours is a `streamkit serve` process that has just started over a store on disk, and a client that
reads with `async for`. The peer's messages are the same, made beforehand. The readers look at every
record. CPU is what each of the two processes spent on a record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.stacks.resumes import TOPICS
from bench.wire import ROOT, Row, Server, generate, row

__all__ = ["run"]

UPDATES = 1_000_000
ROUNDS = 3
FLOOR = 80_000
TIMES = 10.0


def run(updates: int = UPDATES) -> list[Row]:
    """Measure ours and the peer in turns; the best round of each counts."""
    ours: list[Any] = []
    one: list[Any] = []
    peer: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        store = f"{folder}/store.db"
        program("fill", store, updates)
        for _ in range(ROUNDS):
            with grpcio() as server:
                peer.append(measured(server, "read-grpcio", server.port, updates // 5))
            with streamkit(store) as server:
                address = f"127.0.0.1:{server.port}"
                ours.append(measured(server, "read", address, ">", updates, 1))
            with streamkit(store) as server:
                address = f"127.0.0.1:{server.port}"
                one.append(measured(server, "read", address, "orders.0", updates, TOPICS))
    best, narrow, theirs = (max(found) for found in (ours, one, peer))
    rows = [
        row(
            "resume from the store, all topics",
            "updates/s",
            best[0],
            "grpc.aio, from memory",
            theirs[0],
            TIMES,
        ),
        row("resume from the store, all topics", "updates/s", best[0], "the floor", FLOOR, 1.0),
        row(
            "resume from the store, one topic of 20",
            "updates/s",
            narrow[0],
            "grpc.aio, from memory",
            theirs[0],
            0.0,
        ),
    ]
    for place, name in ((1, "server"), (2, "client")):
        spent = [min(found[place] for found in all_of) for all_of in (ours, peer)]
        rows.append(
            row(
                f"resume: CPU of the {name}",
                "us an update",
                spent[0],
                "grpc.aio",
                spent[1],
                0.0,
                less=True,
            )
        )
    return rows


def measured(server: Server, *words: object) -> tuple[float, float, float]:
    """Updates a second, and microseconds of CPU for each: of the server, of the reader."""
    before = server.cpu
    found = json.loads(program(*words))
    count = found["count"]
    return found["rate"], (server.cpu - before) / count * 1e6, found["cpu"] / count * 1e6


def program(*words: object) -> str:
    """What one of the programs prints."""
    command = [sys.executable, "-m", "bench.stacks.resumes", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def streamkit(store: str, *options: str) -> Iterator[Server]:
    """`streamkit serve` over the store."""
    command = [sys.executable, "-m", "streamkit", "serve", "--store", store, "--port", "0"]
    command += ["--retain", "0", "--max-bytes", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split()[-1]
            yield Server(process, int(address.rpartition(":")[2]))
        finally:
            process.terminate()


@contextmanager
def grpcio() -> Iterator[Server]:
    """The peer."""
    command = [sys.executable, "-m", "bench.stacks.resumes", "serve-grpcio"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Server(process, int(process.stdout.readline()))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    for each in run(int(sys.argv[1]) if len(sys.argv) > 1 else UPDATES):
        print(json.dumps(each))
