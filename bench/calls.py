"""Calls one at a time and many at once, next to grpcio, connectrpc, and grpclib with betterproto:
what one call costs, by the clock and by the CPU of the side that uses more.

Server and client are processes of their own for each figure, and the stacks are measured in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import trustme
from grpc_tools import protoc

from bench.wire import ROOT, Row, row, serving, with_connect

ROUNDS = 2

Figures = dict[str, float]


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        rows: list[Row] = []
        for task, name, floors in TASKS:
            rows += compared(task, name, floors)
            print(f"  {name} measured", file=sys.stderr, flush=True)
        return rows


TASKS: list[tuple[str, str, dict[str, float]]] = [
    ("one", "unary, one at a time", {}),
    ("many", "unary, 64 at once", {"grpc.aio": 2.2, "grpclib + betterproto": 2.5}),
    ("own", "unary, a deadline and an id each", {"grpc.aio": 1.5}),
    ("links", "unary, 64 connections", {}),
    ("kib", "unary, 4 KiB, 64 at once", {}),
    ("mib", "unary, 1 MiB, 4 at once", {"grpc.aio": 1.0}),
    ("tls", "unary, TLS, 64 at once", {}),
    ("keys", "unary, 5 keys and an interceptor", {}),
    ("failing", "failing call, 64 at once", {}),
    ("upload", "client stream, a message", {}),
    ("ping", "bidirectional, ping-pong", {"grpc.aio": 1.7}),
    ("piped", "bidirectional, pipelined", {"grpc.aio": 15.0}),
    ("paced", "unary, 100 a second", {}),
]
TIMES = {"p50": 2.0, "p99": 1.0}
"""How many times quicker than grpc.aio's a single call is to be."""
STACKS = {
    "ours": ("ours", "ours"),
    "grpc.aio": ("aio", "aio"),
    "grpcio server, grpc.aio client": ("sync", "aio"),
    "grpclib + betterproto": ("stock", "stock"),
}
CONNECT = "connectrpc, gRPC"
WITHOUT_CONNECT = ("links", "tls", "keys")
CROSSED = {
    "ours to a grpc.aio client": ("ours", "aio"),
    "a client of ours at grpc.aio": ("aio", "ours"),
}
BOUND = 0.9
"""What a client of ours is to get at least of what the server gives at most."""
PREPARED = {"requests prepared beforehand": ("aio", "prepared")}
"""What grpc.aio's server gives at most, whoever asks."""


def prepare(folder: Path) -> None:
    """Generated code for all stacks, and a certificate."""
    plugin = Path(sys.executable).parent / "protoc-gen-python_betterproto"
    command = [
        "protoc",
        f"--proto_path={ROOT / 'bench' / 'stacks'}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        f"--plugin=protoc-gen-bp={plugin}",
        f"--bp_out={folder}",
        "echo.proto",
    ]
    if protoc.main(command):
        raise SystemExit("protoc failed")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    for number, part in enumerate(leaf.cert_chain_pems):
        part.write_to_path(str(folder / "chain.pem"), append=number > 0)


def figures(server: str, client: str, task: str) -> Figures:
    """What a client gets from a fresh server; `busier` is calls per CPU-second."""
    words = ("connect", "bench.stacks.echo_connect:app")
    with serving(*words if server == "connect" else ("echo", server, task)) as process:
        before = process.cpu
        found = measure(client, task, process.port)
        found["server"] = (process.cpu - before) / found.pop("total")
    found["busier"] = 1 / max(found["cpu"], found["server"], 1e-9)
    return found


def measure(client: str, task: str, port: int) -> Figures:
    done = subprocess.run(
        [sys.executable, "-m", "bench.stacks.echo", "client", client, task, str(port)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    if done.returncode:
        raise SystemExit(f"{client} {task} failed:\n{done.stderr[-3000:]}")
    found: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compared(
    task: str,
    name: str,
    floors: dict[str, float],
    peers: dict[str, tuple[str, str]] | None = None,
    rounds: int = ROUNDS,
) -> list[Row]:
    """Rows of ours next to each other stack, or next to some."""
    stacks = STACKS if peers is None else {"ours": STACKS["ours"], **peers}
    if task == "many":
        stacks = stacks | CROSSED | PREPARED
    if peers is None and with_connect() and task not in WITHOUT_CONNECT:
        stacks = {**stacks, CONNECT: ("connect", "connect")}
    best: dict[str, Figures] = {}
    for _ in range(rounds):
        for stack, (server, client) in stacks.items():
            found = figures(server, client, task)
            known = best.setdefault(stack, found)
            for key, value in found.items():
                less = key in ("p50", "p99", "cpu", "server")
                known[key] = (min if less else max)(known.get(key, value), value)
    unit = "messages" if task in ("upload", "ping", "piped") else "calls"
    rows = []
    if task == "many":
        rows = crossed(name, unit, best)
    ours: Any = best.pop("ours")
    for stack, theirs in best.items():
        if stack in CROSSED or stack in PREPARED:
            continue
        if task != "paced":
            floor = floors.get(stack, 0)
            rows.append(row(name, f"{unit}/s", ours["rate"], stack, theirs["rate"], floor))
        if task != "paced" and stack != CONNECT:  # Envoy's own processes are not counted
            busier = f"{unit}/CPU-s, busier side"
            rows.append(row(name, busier, ours["busier"], stack, theirs["busier"], 0))
        rows += [
            row(
                f"{name}, {what}",
                "us",
                ours[what],
                stack,
                theirs[what],
                TIMES[what] if stack == "grpc.aio" and task == "one" else 0,
                less=True,
            )
            for what in ("p50", "p99")
            if what in ours
        ]
    return rows


def crossed(name: str, unit: str, best: dict[str, Figures]) -> list[Row]:
    """Each side of ours with grpc.aio's other side, next to grpc.aio alone, and to the most that
    its server has to give."""
    server, client = (best[stack]["rate"] for stack in CROSSED)
    theirs, most = best["grpc.aio"]["rate"], best[next(iter(PREPARED))]["rate"]
    what = f"{unit}/s"
    return [
        row(f"{name}, our server, its client", what, server, "grpc.aio", theirs, 1.3),
        row(f"{name}, its server, our client", what, client, "grpc.aio", theirs, 0),
        row(f"{name}, its server, our client", what, client, next(iter(PREPARED)), most, BOUND),
    ]
