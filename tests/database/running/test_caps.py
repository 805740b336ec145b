"""Statements that want all the memory or the whole disk, on each database."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import psutil
import pytest

from streamkit.client import AsyncClient
from streamkit.config import QueryLimits
from streamkit.database import Databases, open_source
from streamkit.database.sources.sqlite.spill import spilled
from streamkit.errors import LimitError, QueryError
from streamkit.server import Server
from tests.database.engines import Engine, Postgres
from tests.database.queries import rows_of

MIB = 1 << 20
FEW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000) "
COUNT = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "


async def refused(url: str, sql: str, limits: QueryLimits) -> tuple[Exception, int]:
    """How a statement ended, and by how much this process grew."""
    databases = Databases({"db": open_source("db", url, limits)}, limits)
    await rows_of(databases, "SELECT 1 AS a")
    before = psutil.Process().memory_info().rss
    with pytest.raises((QueryError, LimitError)) as failed:
        await rows_of(databases, sql)
    grown = psutil.Process().memory_info().rss - before
    await databases.close()
    return failed.value, grown


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT x, hex(randomblob(400)) AS r FROM n ORDER BY r",
        "SELECT DISTINCT hex(randomblob(400)) AS r FROM n LIMIT 1 OFFSET 1000000000",
        "SELECT count(*) FROM n GROUP BY hex(randomblob(400))",
        "SELECT x, row_number() OVER (ORDER BY hex(randomblob(400))) AS r FROM n",
    ],
    ids=["order", "distinct", "group", "window"],
)
async def test_sqlite_may_not_fill_the_disk(sqlite_engine: Engine, sql: str) -> None:
    limits = QueryLimits(max_spill=8 * MIB, max_seconds=60)
    error, grown = await refused(sqlite_engine.url, COUNT + sql, limits)
    assert isinstance(error, LimitError), error
    assert f"more than {8 * MIB} bytes of temporary files" in str(error)
    assert grown < 64 * MIB
    assert spilled() == 0


@pytest.mark.parametrize(
    "sql",
    [
        FEW + "SELECT group_concat(hex(zeroblob(1000))) FROM n",
        FEW + "SELECT json_group_array(hex(zeroblob(1000))) FROM n",
        "SELECT hex(randomblob(2000000000))",
        "SELECT zeroblob(2000000000)",
        "SELECT replace(hex(zeroblob(500000)), '0', hex(zeroblob(1000)))",
    ],
)
async def test_sqlite_makes_no_giant_value(sqlite_engine: Engine, sql: str) -> None:
    error, grown = await refused(sqlite_engine.url, sql, QueryLimits())
    assert "too big" in str(error) or "too large" in str(error), error
    assert grown < 64 * MIB


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT string_agg(repeat('x', 1000), '') AS s FROM range(10000000)",
        "SELECT range AS x, repeat(md5(range::text), 20) AS r FROM range(10000000) ORDER BY r",
        "SELECT list(range) AS l FROM range(100000000)",
    ],
)
async def test_duckdb_stays_in_its_memory(duckdb_engine: Engine, sql: str) -> None:
    error, grown = await refused(duckdb_engine.url, sql, QueryLimits(max_memory=64 * MIB))
    assert "memory" in str(error).lower() or "size" in str(error).lower(), error
    assert grown < 192 * MIB


@pytest.mark.parametrize("kind", ["duckdb", "postgresql"])
async def test_a_row_that_no_message_carries_is_not_encoded(
    kind: str, request: pytest.FixtureRequest
) -> None:
    fixture = request.getfixturevalue("postgres" if kind == "postgresql" else "duckdb_engine")
    limits = QueryLimits(max_message_asked=4 * MIB)
    error, _ = await refused(fixture.url, "SELECT repeat('x', 9000000) AS s", limits)
    assert str(error) == f"a row has more than {4 * MIB} bytes, the most that can be sent"


async def test_postgresql_gets_its_share(postgres: Postgres) -> None:
    limits = QueryLimits(max_memory=32 * MIB, max_spill=8 * MIB, max_concurrent=8, max_seconds=60)
    names = (
        "work_mem",
        "temp_file_limit",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
    )
    sql = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    for url, disk in ((postgres.url, "-1"), (postgres.superuser_url, "8MB")):
        databases = Databases({"db": open_source("db", url, limits)}, limits)
        got = await rows_of(databases, sql, seconds=60.0)
        assert got == [dict(zip(names, ("1MB", disk, "1min", "1min"), strict=True))]
        await databases.close()
    sort = "SELECT md5(x::text) AS r FROM generate_series(1, 10000000) AS x ORDER BY r"
    error, _ = await refused(postgres.superuser_url, sort, limits)
    assert "temporary file size exceeds" in str(error)


async def all_of(client: AsyncClient, sql: str) -> int:
    async with client.query(sql, database="db") as result:
        return len([row async for row in result])


async def test_other_limits_hold_for_what_begins_from_then_on(tmp_path: Path) -> None:
    """A result that is being read goes on, in a process that takes no other request."""
    url = str(tmp_path / "some.db")
    sqlite3.connect(url).close()
    limits = QueryLimits(max_concurrent=1, max_wait=0.1, max_unread=60)
    async with (
        Server(journal=":memory:", port=0, databases={"db": url}, query_limits=limits) as server,
        AsyncClient(server.address) as client,
    ):
        databases = server.databases
        assert databases is not None
        many = f"{FEW} SELECT x, hex(zeroblob(500)) FROM n"
        async with client.query(many, database="db") as result:
            rows = result.tuples()
            await anext(rows)
            before = databases.processes
            with pytest.raises(LimitError, match="1 of your queries are running"):
                await all_of(client, "SELECT 1")
            databases.restrict(QueryLimits(max_concurrent=2, max_rows=100, max_unread=60))
            with pytest.raises(LimitError, match="more than 100 rows, the server's limit"):
                await all_of(client, f"{FEW} SELECT x FROM n")
            assert 1 + len([row async for row in rows]) == 20_000
        while databases.processes & before:  # they end with what they ran
            await asyncio.sleep(0.01)
        assert databases.processes
    assert not databases.processes
