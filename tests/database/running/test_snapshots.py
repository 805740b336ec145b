"""All batches of one result come from one snapshot, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamkit.database import Databases, QueryPlan, SqliteSource, open_source
from tests.database.engines import Postgres
from tests.database.google import messages
from tests.database.queries import rows_of

PAIRS = 5000


class Writer:
    """Adds to one row and takes from another in one transaction, over and over: the sum of every
    snapshot is 0."""

    def __init__(self, execute: Callable[[str], Any]) -> None:
        self.written = 0
        self._execute = execute
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            low, high = random.sample(range(1, PAIRS + 1), 2)
            self._execute("BEGIN")
            self._execute(f"UPDATE pairs SET n = n + 1 WHERE id = {low}")
            self._execute(f"UPDATE pairs SET n = n - 1 WHERE id = {high}")
            self._execute("COMMIT")
            self.written += 1


async def check_snapshots(databases: Databases, writer: Writer, **plan: Any) -> None:
    for _ in range(5):
        total = rows = 0
        async with databases.run("db", QueryPlan(**plan)) as frames:
            before = writer.written
            async for framed in frames:
                for message in messages(framed.data):
                    rows += len(message.rows)
                    total += sum(int(row.columns["n"]) for row in message.rows)
                while writer.written == before:  # something is committed between the batches
                    await asyncio.sleep(0.001)
                before = writer.written
        assert (rows, total) == (PAIRS, 0)


async def test_sqlite_under_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "pairs.db"
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE pairs(id INTEGER PRIMARY KEY, n INTEGER)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO pairs(n) VALUES (?)", ((0,) for _ in range(PAIRS)))
    connection.execute("COMMIT")
    databases = Databases({"db": SqliteSource("db", path)})
    writer = Writer(connection.execute)
    with writer.running():
        await check_snapshots(databases, writer, sql="SELECT n FROM pairs")
    await databases.close()
    connection.close()


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [("SELECT n FROM pairs", {}), ("SELECT n FROM pairs WHERE id > :least", {"least": 0})],
    ids=["plain", "with a parameter"],
)
async def test_postgresql_under_a_writer(
    postgres: Postgres, sql: str, parameters: dict[str, Any]
) -> None:
    postgres.execute(
        "DROP TABLE IF EXISTS pairs",
        # Wide rows: more than the pipes between the server and the reader can hold.
        "CREATE TABLE pairs AS SELECT id, 0 AS n, repeat('x', 1000) AS wide"
        f" FROM generate_series(1, {PAIRS}) t(id)",
        "ALTER TABLE pairs ADD PRIMARY KEY (id)",
        "GRANT SELECT ON pairs TO reader",
    )
    databases = Databases({"db": open_source("db", postgres.url)})
    with postgres.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        writer = Writer(cursor.execute)
        with writer.running():
            wide = sql.replace("SELECT n", "SELECT n, wide")
            await check_snapshots(databases, writer, sql=wide, parameters=parameters)
    await databases.close()


_WRITE = """
import duckdb, sys
try:
    duckdb.connect(sys.argv[1]).execute("UPDATE pairs SET n = n + 1")
except duckdb.IOException as error:
    print("lock" in str(error))
"""


async def test_a_duckdb_file_has_no_writer_while_it_is_read(tmp_path: Path) -> None:
    """Its lock keeps writers of other processes out, and one that was replaced is read on."""
    path, other = tmp_path / "pairs.duckdb", tmp_path / "other.duckdb"
    for file, value in ((path, 1), (other, 2)):
        with duckdb.connect(str(file)) as connection:
            connection.execute(f"CREATE TABLE pairs AS SELECT {value} AS n FROM range(500000)")
    databases = Databases({"db": open_source("db", f"duckdb:///{path}")})
    seen: set[str] = set()
    rows = 0
    async with databases.run("db", QueryPlan(sql="SELECT n FROM pairs")) as frames:
        seen |= {row.columns["n"] for m in messages((await anext(frames)).data) for row in m.rows}
        refused = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", _WRITE, str(path)], capture_output=True
        )
        assert refused.stdout.strip() == b"True", refused.stderr
        other.replace(path)
        async for framed in frames:
            for message in messages(framed.data):
                rows += len(message.rows)
                seen |= {row.columns["n"] for row in message.rows}
    assert seen == {"1"}
    assert rows > 400_000
    assert await rows_of(databases, "SELECT DISTINCT n FROM pairs") == [{"n": "2"}]
    await databases.close()


async def test_a_parquet_file_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    path, other = tmp_path / "pairs.parquet", tmp_path / "other.parquet"
    for file, value in ((path, 1), (other, 2)):
        pq.write_table(pa.table({"n": [value] * 500_000}), file, row_group_size=10_000)
    databases = Databases({"db": open_source("db", f"parquet:///{path}")})
    seen: set[str] = set()
    async with databases.run("db", QueryPlan(sql="SELECT n FROM pairs")) as frames:
        await anext(frames)
        other.replace(path)
        async for framed in frames:
            seen |= {row.columns["n"] for m in messages(framed.data) for row in m.rows}
    assert seen == {"1"}
    assert await rows_of(databases, "SELECT DISTINCT n FROM pairs") == [{"n": "2"}]
    await databases.close()
