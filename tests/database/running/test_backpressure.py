"""A reader that stops reading stops the database: the rows that it produces are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import psutil
import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, QueryPlan, open_source
from streamkit.database.base import Result
from streamkit.database.sources.adbc.source import _AdbcResult
from streamkit.database.sources.sqlite.source import _SqliteResult
from tests.database.engines import Engine, Postgres

T = TypeVar("T", int, float)

WIDE = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
    " SELECT x, hex(zeroblob(200)) AS wide FROM n",
    "duckdb": "SELECT range AS x, repeat('x', 400) AS wide FROM range(1000000000000)",
    "postgresql": "SELECT x, repeat('x', 400) AS wide"
    " FROM (SELECT generate_series(1, 1000000000000) AS x) AS n",
}
MOST_ROWS = 60_000
"""24 MB: windows of 2 MB and what the pipes to PostgreSQL hold are far below it."""


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each fetch from a database gave, of the queries themselves."""
    counts: list[int] = []

    def counting(kind: type[Result], name: str, size: Callable[[Any], int]) -> None:
        fetch = getattr(kind, name)

        def counted(self: Result, *arguments: Any) -> Any:
            got = fetch(self, *arguments)
            counts.append(size(got))
            return got

        monkeypatch.setattr(kind, name, counted)

    counting(_SqliteResult, "rows", len)
    counting(_AdbcResult, "_next", lambda batch: batch.num_rows if batch is not None else 0)
    return counts


async def steady(count: Callable[[], T]) -> T:
    """What `count` gives when it has been the same for a while."""
    last, same = count(), 0
    async with asyncio.timeout(90):
        while same < 10:
            await asyncio.sleep(0.05)
            now = count()
            last, same = now, (same + 1 if now == last else 0)
    return last


async def test_a_reader_that_stops_stops_the_fetching(engine: Engine, fetched: list[int]) -> None:
    databases = Databases({"db": open_source("db", engine.url)}, forked=False)
    async with databases.run("db", QueryPlan(sql=WIDE[engine.kind])) as frames:
        await anext(frames)
        stopped = await steady(lambda: sum(fetched))
        assert 0 < stopped < MOST_ROWS
        for _ in range(20):  # and reading on goes on
            await anext(frames)
        async with asyncio.timeout(90):
            while sum(fetched) == stopped:
                await anext(frames)
    await databases.close()
    print(f"\n{engine.kind}: {stopped} rows fetched ahead of a reader that stands still")


async def test_a_reader_that_stops_stops_the_server_of_postgresql(postgres: Postgres) -> None:
    """PostgreSQL itself says how many rows it has produced."""
    databases = Databases({"db": open_source("db", postgres.url)})
    with postgres.cursor() as watch:

        def produced() -> int:
            watch.execute("SELECT coalesce(max(tuples_processed), 0) FROM pg_stat_progress_copy")
            return int(watch.fetchone()[0])

        async with databases.run("db", QueryPlan(sql=WIDE["postgresql"])) as frames:
            await anext(frames)
            stopped = await steady(produced)
            assert 0 < stopped < MOST_ROWS
    await databases.close()
    print(f"\nPostgreSQL: {stopped} rows produced for a reader that stands still")


@pytest.mark.parametrize("engine", ["sqlite", "duckdb"], indirect=True)
async def test_a_reader_that_stops_stops_the_process(engine: Engine) -> None:
    limits = QueryLimits(count_seconds=0)
    databases = Databases({"db": open_source("db", engine.url)}, limits)
    async with databases.run("db", QueryPlan(sql=WIDE[engine.kind])) as frames:
        await anext(frames)
        children = [psutil.Process(number) for number in databases.processes]

        def used() -> float:
            return float(sum(child.cpu_times().user for child in children))

        stopped = await steady(used)
        for _ in range(200):  # and reading on goes on
            await anext(frames)
        async with asyncio.timeout(90):
            while used() == stopped:
                await anext(frames)
    await databases.close()
