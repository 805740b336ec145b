"""What every database promises, on each of them: SQLite, DuckDB, PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from streamkit.config import QueryLimits
from streamkit.database import ColumnInfo, Databases, QueryPlan, TableInfo, open_source
from streamkit.errors import DeadlineError, LimitError, NotFoundError, QueryError
from tests.database.engines import ROWS, Engine, people
from tests.database.google import QueryResult, bodies
from tests.database.queries import frames_of, messages_of, query_threads, rows_of

ALL = "SELECT id, name, score FROM people ORDER BY id"


def text(row: tuple[Any, ...]) -> dict[str, str]:
    number, name, score = row
    shown = {"id": str(number), "score": f"{score:.2f}".rstrip("0").rstrip(".")}
    return shown if name is None else {**shown, "name": name}


async def test_batches_are_numbered_full_and_complete(databases: Databases) -> None:
    got = await messages_of(databases, ALL, batch_rows=500)

    assert [len(message.rows) for message in got] == [500] * 6
    assert [message.batch_number for message in got] == [1, 2, 3, 4, 5, 6]
    assert [message.is_last for message in got] == [False] * 5 + [True]
    assert (got[-1].total_batches, got[-1].total_rows) == (6, ROWS)
    assert [dict(row.columns) for m in got for row in m.rows] == list(map(text, people()))


async def test_the_last_batch_may_be_short(databases: Databases) -> None:
    got = await messages_of(databases, ALL, batch_rows=999)

    assert [len(message.rows) for message in got] == [999, 999, 999, 3]
    assert got[-1].is_last


async def test_the_totals_are_right_or_not_there(databases: Databases) -> None:
    for message in await messages_of(databases, ALL, batch_rows=7):
        assert message.total_batches in (0, -(-ROWS // 7))
        assert message.total_rows in (0, ROWS)


async def test_an_empty_result_is_one_message(databases: Databases) -> None:
    (message,) = await messages_of(databases, ALL.replace("ORDER", "WHERE id < 0 ORDER"))

    assert (len(message.rows), message.batch_number, message.total_batches) == (0, 1, 1)
    assert message.is_last
    assert message.total_rows == 0


async def test_null_is_absent_and_repeated_names_have_a_suffix(databases: Databases) -> None:
    got = await rows_of(databases, "SELECT 1 AS a, 2 AS a, NULL AS b, 3 AS a_2, 4 AS a")

    assert got == [{"a": "1", "a_3": "2", "a_2": "3", "a_4": "4"}]


async def test_columns_are_announced_to_who_asks(databases: Databases, engine: Engine) -> None:
    first, *others = await messages_of(databases, ALL, columns=True, batch_rows=1000)
    kinds = {
        "sqlite": ["INTEGER", "TEXT", "REAL"],
        "duckdb": ["BIGINT", "VARCHAR", "DOUBLE"],
        "postgresql": ["int4", "text", "float8"],
    }

    assert [column.name for column in first.columns] == ["id", "name", "score"]
    assert [column.type for column in first.columns] == kinds[engine.kind]
    assert all(column.nullable for column in first.columns)
    assert not any(message.columns for message in others)
    (empty,) = await messages_of(databases, "SELECT id FROM people WHERE id < 0", columns=True)
    assert [column.name for column in empty.columns] == ["id"]


async def test_arrow_is_the_schema_and_then_the_batches(databases: Databases) -> None:
    got = await messages_of(databases, ALL, batch_rows=1000, arrow=True)
    stream = b"".join(message.arrow_ipc for message in got)
    table = pa.ipc.open_stream(stream).read_all()

    assert not any(message.rows for message in got)
    assert [message.batch_number for message in got] == [1, 2, 3, 4]
    assert (got[-1].total_batches, got[-1].total_rows, got[-1].is_last) == (4, ROWS, True)
    schema = pa.ipc.read_schema(pa.py_buffer(got[0].arrow_ipc))
    assert pa.ipc.read_record_batch(pa.py_buffer(got[1].arrow_ipc), schema).num_rows == 1000
    assert list(zip(*table.to_pydict().values(), strict=True)) == people()


async def test_arrow_lies_where_a_reader_can_use_it(databases: Databases) -> None:
    frames = await frames_of(databases, ALL, batch_rows=300, arrow=True)

    for body in bodies(frames):
        payload = QueryResult.FromString(body).arrow_ipc
        assert len(payload) % 8 == 0
        assert body.index(payload) % 8 == 0


async def test_an_empty_arrow_result_has_its_schema(databases: Databases) -> None:
    (message,) = await messages_of(databases, "SELECT id FROM people WHERE id < 0", arrow=True)

    assert pa.ipc.read_schema(pa.py_buffer(message.arrow_ipc)).names == ["id"]
    assert message.is_last


async def test_positional_parameters(databases: Databases, engine: Engine) -> None:
    mark = "$1" if engine.kind == "postgresql" else "?"
    other = "$2" if engine.kind == "postgresql" else "?"
    sql = f"SELECT id FROM people WHERE id > {mark} AND id < {other} ORDER BY id"

    assert await rows_of(databases, sql, parameters=[10, 13]) == [{"id": "11"}, {"id": "12"}]


async def test_named_parameters_of_every_type(databases: Databases) -> None:
    cast = "SELECT CAST(:x AS {}) AS x, ':x' AS quoted /* :y */ -- :z"
    for value, kind, shown in [(7, "INTEGER", "7"), (0.5, "REAL", "0.5"), ("it's", "TEXT", "it's")]:
        got = await rows_of(databases, cast.format(kind), parameters={"x": value})
        assert got == [{"x": shown, "quoted": ":x"}]
    moment = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
    for value in (moment, Decimal("12.50"), True, b"\x00\xff"):
        assert len(await rows_of(databases, "SELECT :x AS x", parameters={"x": value})) == 1
    sql = "SELECT count(*) AS n FROM people WHERE CAST(:x AS TEXT) IS NOT NULL"
    assert await rows_of(databases, sql, parameters={"x": None}) == [{"n": "0"}]


async def test_a_long_result_with_parameters_is_complete(databases: Databases) -> None:
    sql = "SELECT id FROM people WHERE id > :least ORDER BY id"
    got = await rows_of(databases, sql, parameters={"least": 5}, batch_rows=400)

    assert [int(row["id"]) for row in got] == list(range(6, ROWS + 1))


@pytest.mark.parametrize("parameters", [{}, {"y": 1}], ids=["none", "another"])
async def test_a_missing_parameter_is_named(
    databases: Databases, parameters: dict[str, Any]
) -> None:
    with pytest.raises(QueryError, match="x"):
        await rows_of(databases, "SELECT :x AS a", parameters=parameters or {"z": 1})


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM nothing", "nothing"),
        ("SELEC 1", "SELEC"),
        ("SELECT nothing FROM people", "nothing"),
        ("SELECT 1; SELECT 2", "one statement|multiple commands"),
        ("", "statement|end of input"),
        ("-- nothing", "statement|end of input"),
        ("INSERT INTO people VALUES (0, 'x', 1)", "read-only|INSERT|insert"),
        ("DROP TABLE people", "read-only|DROP|drop"),
    ],
)
async def test_a_wrong_statement_fails_in_the_databases_words(
    databases: Databases, sql: str, words: str
) -> None:
    with pytest.raises(QueryError, match=f"(?i){words}") as failed:
        await rows_of(databases, sql)
    assert "\n" not in str(failed.value)
    assert len(await rows_of(databases, ALL)) == ROWS


async def test_a_query_ends_at_its_deadline(databases: Databases, engine: Engine) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"longer than 0\.4 s"):
        await rows_of(databases, engine.endless, seconds=0.4)
    assert time.monotonic() - began < 60  # the aim is a tenth of a second after it


async def test_a_deadline_also_ends_a_query_whose_reader_sleeps(
    databases: Databases, engine: Engine
) -> None:
    await rows_of(databases, "SELECT 1 AS a")  # connecting and importing take long when busy
    plan = QueryPlan(sql=engine.unbounded, seconds=1)
    async with databases.run("db", plan) as frames:
        await anext(frames)
        async with asyncio.timeout(60):
            while databases.running:
                await asyncio.sleep(0.01)
        with pytest.raises(DeadlineError):
            while True:
                await anext(frames)
    assert query_threads() == databases.statements == 0, "what was still to be read begins no count"


def test_a_result_that_nobody_watches_ends_at_its_deadline(engine: Engine) -> None:
    """Also where the database has answered by then and says nothing of it."""
    source = open_source("db", engine.url)
    result = source.open(ALL, seconds=1e-6)
    with (
        closing(source),
        closing(result),
        pytest.raises(DeadlineError, match="longer than 1e-06 s"),
    ):
        result.start()
        (result.record_batch if result.arrow else result.rows)(10, 1000)


async def test_a_count_has_a_time_of_its_own(engine: Engine) -> None:
    databases = Databases({"db": open_source("db", engine.url)}, QueryLimits(count_seconds=0.5))
    async with databases.run("db", QueryPlan(sql=engine.unbounded)) as frames, asyncio.timeout(60):
        while databases.statements < 2:
            await anext(frames)
        while databases.statements > 1:
            await asyncio.sleep(0.01)
        await anext(frames)  # the rows go on
    await databases.close()


async def test_leaving_cancels_the_statement(databases: Databases, engine: Engine) -> None:
    async with databases.run("db", QueryPlan(sql=engine.unbounded)) as frames:
        await anext(frames)
        began = time.monotonic()
    # The aim is 0.1 s, and 1 s on PostgreSQL, on a machine that does nothing else.
    assert time.monotonic() - began < 60
    assert databases.running == 0


async def test_a_reader_that_stops_stops_the_cursor(engine: Engine) -> None:
    databases = Databases({"db": open_source("db", engine.url)}, forked=False)
    async with databases.run("db", QueryPlan(sql=engine.unbounded, batch_rows=1000)) as frames:
        await anext(frames)
        await asyncio.sleep(0.3)  # time for a worker that does not wait to run far ahead
        (query,) = databases._running
        work: Any = query._work
        assert len(work._handover._items) <= 2
    await databases.close()


async def test_rows_and_bytes_are_limited(engine: Engine) -> None:
    async def read(**limits: Any) -> int:
        source = open_source("db", engine.url)
        databases = Databases({"db": source}, QueryLimits(**limits))
        got = 0
        plan = QueryPlan(sql=ALL, batch_rows=100)
        with pytest.raises(LimitError, match="the server's limit"):
            async with databases.run("db", plan) as frames:
                async for framed in frames:
                    got += framed.count
        await databases.close()
        return got

    assert await read(max_rows=1000) == 10
    assert 0 < await read(max_bytes=20_000) < 30


async def test_a_batch_ends_early_at_its_bytes(databases: Databases) -> None:
    sql = "SELECT id, {} AS long FROM people ORDER BY id LIMIT 200"
    long = "replace('" + "x" * 100 + "', 'x', '0123456789')"
    got = await messages_of(databases, sql.format(long), batch_rows=500, max_message=20_000)

    assert sum(len(message.rows) for message in got) == 200
    assert all(message.ByteSize() < 20_100 for message in got)
    assert len(got) > 10
    assert (got[-1].total_batches, got[-1].total_rows) == (len(got), 200)
    with pytest.raises(LimitError, match="a row of"):
        await rows_of(databases, sql.format(long), max_message=500)
    arrow = await messages_of(
        databases, sql.format(long), batch_rows=500, max_message=20_000, arrow=True
    )
    assert all(message.ByteSize() < 20_100 for message in arrow)
    stream = b"".join(message.arrow_ipc for message in arrow)
    assert pa.ipc.open_stream(stream).read_all().num_rows == 200


async def test_queries_wait_for_their_turn(engine: Engine) -> None:
    limits = QueryLimits(max_concurrent=1, max_wait=0.2)
    databases = Databases({"db": open_source("db", engine.url)}, limits)
    async with databases.run("db", QueryPlan(sql=engine.unbounded)) as frames:
        await anext(frames)
        with pytest.raises(LimitError, match="1 queries are running"):
            await frames_of(databases, "SELECT 1 AS a")
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]
    await databases.close()


async def test_tables_and_their_columns(databases: Databases) -> None:
    tables = await databases.tables("db")
    columns = await databases.describe("people", "db")

    assert TableInfo("people", "table") in tables
    assert TableInfo("few", "view") in tables
    assert [column.name for column in columns] == ["id", "name", "score"]
    assert all(isinstance(column, ColumnInfo) and column.type for column in columns)
    with pytest.raises(NotFoundError, match="'nothing'"):
        await databases.describe("nothing", "db")
    with pytest.raises(NotFoundError, match="this server has: db"):
        await databases.tables("elsewhere")


async def test_many_at_once(databases: Databases) -> None:
    results = await asyncio.gather(*(rows_of(databases, ALL) for _ in range(12)))

    assert all(len(result) == ROWS for result in results)
