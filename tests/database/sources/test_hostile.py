"""The corpus: no file is made, nothing changes, nothing hidden is shown, no time is lost."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, QueryPlan, SqliteSource, StoreSource, open_source
from streamkit.database.sources.sqlite.guard import connect_read_only, guard
from streamkit.errors import QueryError, StreamkitError
from tests.database import hostile
from tests.database.engines import ROWS, Engine, Postgres, make_sqlite
from tests.database.queries import rows_of

BUDGET = 0.3
SECRET = "the secret of another"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files of others in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text(f"a\n{SECRET}\n")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE secrets(a)")
    other.execute("INSERT INTO secrets VALUES (?)", (SECRET,))
    other.commit()
    other.close()
    return tmp_path


def make_store(folder: Path) -> StoreSource:
    path = Path(make_sqlite(folder).url)
    store = sqlite3.connect(path)
    store.execute("CREATE TABLE meta(k TEXT PRIMARY KEY, v)")
    store.execute("CREATE TABLE dedupe(source, id)")
    store.execute("INSERT INTO meta VALUES ('secret', ?)", (SECRET,))
    store.execute("INSERT INTO dedupe VALUES ('s', ?)", (SECRET,))
    store.execute("CREATE VIEW hidden_view AS SELECT v FROM meta")
    store.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
    store.execute("INSERT INTO words VALUES ('needle'), ('hay')")
    store.execute("ANALYZE")
    store.commit()
    store.close()
    return StoreSource(path)


def state(folder: Path) -> dict[str, str]:
    """Every file and its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def attack(databases: Databases, statements: list[str]) -> tuple[int, int, int, float]:
    """Run them all: how many were refused, showed the secret, overran; the longest time.

    An honest query after each one waits for nothing.
    """
    refused = shown = late = 0
    longest = 0.0
    for sql in statements:
        for _ in range(3):  # a busy machine is late once, a statement out of control always
            was_refused, was_shown, took = await attempt(databases, sql)
            began = time.monotonic()
            assert not (await attempt(databases, "SELECT 1", 60))[0], sql[:100]
            waited = time.monotonic() - began
            if took <= 1.5 * BUDGET + 0.1 and waited < 1:
                break
        else:
            late += 1
            print(f"late: {took:.2f} s, and {waited:.2f} s after it: {sql[:100]}")
        refused += was_refused
        shown += was_shown
        longest = max(longest, took)
    return refused, shown, late, longest


async def attempt(
    databases: Databases, sql: str, seconds: float = BUDGET
) -> tuple[bool, bool, float]:
    """Run one: whether it was refused, whether it showed the secret, how long it took."""
    began = time.monotonic()
    refused = shown = False
    tail = b""
    try:
        async with databases.run("db", QueryPlan(sql=sql, seconds=seconds)) as frames:
            async for framed in frames:
                data = framed.data
                assert isinstance(data, bytes)
                shown |= SECRET.encode() in tail + data
                tail = data[-len(SECRET) :]
    except StreamkitError as error:
        refused = True
        assert SECRET not in str(error), sql[:100]
        assert "\n" not in str(error), sql[:100]
    return refused, shown, time.monotonic() - began


def report(name: str, statements: int, result: tuple[Any, ...], growth: int, files: int) -> None:
    refused, shown, late, longest = result
    print(
        f"\n{name}: {statements} hostile statements, {refused} refused, secrets shown {shown},"
        f" files created or changed {files}, over budget {late}, longest {longest:.2f} s,"
        f" memory {growth >> 20:+d} MiB"
    )


def held_memory() -> int:
    """Bytes that this process holds, less what its allocator keeps free for the next request:
    how much that is depends on the tests that ran before."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def some(statements: list[str], whole: bool) -> list[str]:
    """All of them, or each seventh, from another one on every day."""
    return statements if whole else statements[datetime.now().toordinal() % 7 :: 7]


WHOLE = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"]
)


@WHOLE
async def test_sqlite_withstands_its_own(folder: Path, whole: bool) -> None:
    databases = Databases({"db": make_store(folder)})
    await rows_of(databases, "SELECT * FROM people")
    before, memory = state(folder), held_memory()
    statements = some(hostile.SQLITE, whole)
    result = await attack(databases, statements)
    growth = held_memory() - memory
    after = state(folder)
    files = sum(after.get(name) != before.get(name) for name in after | before)
    report("SQLite", len(statements), result, growth, files)

    assert len(set(hostile.SQLITE) | set(hostile.DUCKDB)) >= 300
    assert result[1:3] == (0, 0)
    assert files == 0
    assert growth < 64 << 20
    assert len(await rows_of(databases, "SELECT * FROM people")) == ROWS
    await databases.close()


@WHOLE
async def test_duckdb_withstands_its_own(folder: Path, duckdb_engine: Engine, whole: bool) -> None:
    limits = QueryLimits(max_memory=64 << 20)
    databases = Databases({"db": open_source("db", duckdb_engine.url, limits)}, limits)
    await rows_of(databases, "SELECT * FROM people")
    home = Path(duckdb_engine.url.removeprefix("duckdb:///")).parent
    before = state(folder) | state(home)
    statements = some(hostile.DUCKDB, whole)
    result = await attack(databases, statements)
    after = state(folder) | state(home)
    files = sum(after.get(name) != before.get(name) for name in after | before)
    report("DuckDB", len(statements), result, 0, files)

    assert result[1:3] == (0, 0)
    harmless = len(set(statements) & set(hostile.DUCKDB_UNSTOPPABLE))
    assert result[0] >= len(statements) - harmless, "all others are to be refused"
    assert files == 0
    assert len(await rows_of(databases, "SELECT * FROM people")) == ROWS
    await databases.close()


@pytest.mark.parametrize("login", ["reader", "superuser"])
async def test_postgresql_withstands_its_own(
    folder: Path, postgres: Postgres, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    postgres.execute(
        "CREATE SEQUENCE IF NOT EXISTS counter",
        "GRANT USAGE ON SEQUENCE counter TO reader",
        "DROP TABLE IF EXISTS secrets",
        f"CREATE TABLE secrets AS SELECT '{SECRET}'::text AS a",
    )
    url = postgres.url if login == "reader" else postgres.superuser_url
    databases = Databases({"db": open_source("db", url)})
    statements = [sql.replace("{folder}", str(folder)) for sql in hostile.POSTGRESQL]
    if login == "superuser":
        # Its own tables it may see; what SQL alone must not do is write and read files.
        statements = [sql for sql in statements if "secrets" not in sql]
    folder.chmod(0o777)
    before = state(folder)
    result = await attack(databases, statements)
    files = sum(state(folder).get(name) != before.get(name) for name in state(folder) | before)
    report(f"PostgreSQL as {login}", len(statements), result, 0, files)

    assert result[1:3] == (0, 0)
    assert files == 0
    assert postgres.execute("SELECT count(*) FROM people") == [(ROWS,)]
    assert postgres.execute("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    warned = any("superuser" in record.message for record in caplog.records)
    assert warned == (login == "superuser")
    await databases.close()


async def test_what_is_allowed_stays_possible(folder: Path) -> None:
    databases = Databases({"db": make_store(folder)})
    for sql, expected in [
        ("SELECT value FROM json_each('[1, 2]')", [{"value": "1"}, {"value": "2"}]),
        ("SELECT fullkey AS k FROM json_tree('{\"a\": 1}') LIMIT 1", [{"k": "$"}]),
        ("SELECT word FROM words WHERE words MATCH 'needle'", [{"word": "needle"}]),
        ("SELECT name FROM sqlite_master WHERE name = 'few'", [{"name": "few"}]),
        ("VALUES (1)", [{"column1": "1"}]),
        ("SELECT count(*) AS n FROM few", [{"n": "9"}]),
        ("SELECT id FROM people ORDER BY name DESC, id LIMIT 1 OFFSET 2 -- done", None),
        ("EXPLAIN QUERY PLAN SELECT 1", None),
        ("SELECT 1 AS a;", [{"a": "1"}]),
    ]:
        got = await rows_of(databases, sql)
        assert got == expected if expected is not None else got
    await databases.close()


def test_nothing_is_attached_and_no_thread_begun_beside_the_authorizer(folder: Path) -> None:
    connection = connect_read_only(Path(make_sqlite(folder).url))
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 2)  # as SQLite may have been built
    guard(connection, hidden=(), max_value=1 << 20, stop=lambda: False)
    assert connection.getlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS) == 0
    connection.set_authorizer(None)
    with pytest.raises(sqlite3.OperationalError, match="too many attached databases"):
        connection.execute("ATTACH 'other.db' AS other")
    connection.close()


async def test_text_that_is_not_utf8_arrives_with_replacements(tmp_path: Path) -> None:
    path = tmp_path / "latin.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(a)")
    connection.execute("INSERT INTO t VALUES (CAST(x'636166e9' AS TEXT)), ('ok'), (NULL)")
    connection.commit()
    connection.close()
    databases = Databases({"db": SqliteSource("db", path)})

    got = await rows_of(databases, "SELECT a FROM t")
    assert got == [{"a": "caf\N{REPLACEMENT CHARACTER}"}, {"a": "ok"}, {}]
    await databases.close()


def test_rows_before_a_fault_come_before_it(tmp_path: Path) -> None:
    source = SqliteSource("db", make_sqlite(tmp_path).url)
    values = ", ".join(f"({n})" for n in range(1, 20))
    smallest = "(-9223372036854775807 - 1)"  # which has no absolute value
    result = source.open(
        f"WITH n(x) AS (VALUES {values}) SELECT iif(x < 9, x, abs({smallest} + x - 9)) FROM n",
        seconds=600,
    )
    result.start()
    rows = result.rows(100, 1 << 20)
    assert rows == [(n + 1,) for n in range(len(rows))]
    assert rows
    with pytest.raises(QueryError, match="integer overflow"):
        result.rows(100, 1 << 20)
    result.close()


def test_a_result_that_is_closed_may_be_cancelled(tmp_path: Path) -> None:
    result = SqliteSource("db", make_sqlite(tmp_path).url).open("SELECT 1", seconds=600)
    result.start()
    result.cancel()
    result.close()
    result.cancel()
