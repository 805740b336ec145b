"""Values that drivers and kernels do not carry as they are, and words for what went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from streamkit.database import Databases, open_source
from streamkit.errors import NotFoundError, QueryError
from tests.database.engines import Engine, Postgres
from tests.database.queries import rows_of


@pytest.fixture(params=["duckdb", "postgresql"])
async def databases(request: pytest.FixtureRequest) -> AsyncIterator[Databases]:
    if request.param == "duckdb":
        engine: Engine = request.getfixturevalue("duckdb_engine")
    else:
        engine = Engine("postgresql", request.getfixturevalue("postgres").url)
    databases = Databases({"db": open_source("db", engine.url)})
    yield databases
    await databases.close()


async def test_infinite_times_have_their_names(databases: Databases) -> None:
    sql = (
        "SELECT timestamptz '{0}infinity' AS a, timestamp '{0}infinity' AS b,"
        " date '{0}infinity' AS c, time '24:00:00' AS d, CAST(NULL AS date) AS e"
    )
    for sign in ("", "-"):
        end = f"{sign}infinity"
        got = await rows_of(databases, sql.format(sign))
        assert got == [{"a": end, "b": end, "c": end, "d": "24:00:00"}]


@pytest.mark.parametrize("value", ["date '99999-01-01'", "timestamp '50000-01-01'"])
async def test_a_day_beyond_the_calendar_is_refused(databases: Databases, value: str) -> None:
    with pytest.raises(QueryError, match="column 'x' holds a day beyond the calendar"):
        await rows_of(databases, f"SELECT {value} AS x")
    assert len(await rows_of(databases, f"SELECT CAST({value} AS text) AS x")) == 1


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 5::money AS m", "column 'm' has the type money, which cannot be sent"),
        ("SELECT ARRAY[5::money] AS m", "column 'm' has the type money, which cannot be sent"),
        ("SELECT row(1, 2) AS r", "a value has a form that cannot be sent: cast it to text"),
        ("SELECT int4range(1, 2) AS r", "which cannot be sent: cast it to text"),
        ("DELETE FROM people", 'only a query can run here: syntax error at or near "DELETE"'),
        ("SELECT 1; SELECT 2", "only one statement at a time"),
        ("SELECT id FROM people WHERE", "^syntax error at end of input"),
    ],
)
async def test_postgresql_says_what_cannot_be_sent(
    postgres: Postgres, sql: str, words: str
) -> None:
    databases = Databases({"db": open_source("db", postgres.url)})
    with pytest.raises(QueryError, match=words):
        await rows_of(databases, sql)
    await databases.close()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("'10110'::BIT", "BIT"),
        ("['10110'::BIT]", "BIT"),
        ("{'a': '12:00:00+02'::TIMETZ}", "TIME WITH TIME ZONE"),
        ("340282366920938463463374607431768211455::UHUGEINT", "UHUGEINT"),
    ],
)
async def test_duckdb_says_what_would_come_as_something_else(
    duckdb_engine: Engine, value: str, kind: str
) -> None:
    databases = Databases({"db": open_source("db", duckdb_engine.url)})
    with pytest.raises(QueryError, match=f"column 'x' has the type {kind}, which cannot be sent"):
        await rows_of(databases, f"SELECT :a AS a, {value} AS x", parameters={"a": "b"})
    rows = "time '12:00' AS t, '\\xff'::BLOB AS b, sum(1::HUGEINT) AS h, {'BIT': 1} AS s"
    got = await rows_of(databases, f"SELECT {rows}, [{value}]::TEXT AS x")
    assert got[0] | {"x": ""} == {"t": "12:00:00", "b": "ff", "h": "1", "s": '{"BIT":1}', "x": ""}
    await databases.close()


@pytest.mark.parametrize(
    ("sql", "given", "words"),
    [
        ("SELECT :a AS x", {"a": 1, "b": 2}, "parameter :b is not used in the query"),
        ("SELECT 1 AS x", {"b": 2}, "parameter :b is not used in the query"),
        ("SELECT :a AS x, :b AS y", {"a": 1}, "parameter :b has no value"),
    ],
)
async def test_parameters_and_names_must_match(
    engine: Engine, sql: str, given: dict[str, Any], words: str
) -> None:
    databases = Databases({"db": open_source("db", engine.url)})
    with pytest.raises(QueryError, match=words):
        await rows_of(databases, sql, parameters=given)
    assert await rows_of(databases, "SELECT :a AS x, :a AS y", parameters={"a": "1"}) == [
        {"x": "1", "y": "1"}
    ]
    await databases.close()


async def test_tables_of_other_schemas_and_odd_names(tmp_path: Path, postgres: Postgres) -> None:
    odd = ['CREATE TABLE "Odd ""Na.me"(a INTEGER NOT NULL, "b c" NUMERIC(10, 2))']
    schema = ["CREATE SCHEMA sales", 'CREATE TABLE sales."t.x"(a INTEGER)']
    grants = [
        "GRANT USAGE ON SCHEMA sales TO reader",
        'GRANT SELECT ON "Odd ""Na.me", kept, sales."t.x" TO reader',
    ]
    kept = ["CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one", "CREATE TABLE private(a INTEGER)"]
    postgres.execute(*odd, *schema, *kept, *grants)
    with duckdb.connect(str(tmp_path / "odd.duckdb")) as connection:
        for statement in (*odd, *schema):
            connection.execute(statement)
    for url in (f"duckdb:///{tmp_path}/odd.duckdb", postgres.url):
        databases = Databases({"db": open_source("db", url)})
        names = {table.name: table.kind for table in await databases.tables("db")}
        assert names['Odd "Na.me'] == names["sales.t.x"] == "table"
        columns = await databases.describe('Odd "Na.me', "db")
        assert [(c.name, c.nullable) for c in columns] == [("a", False), ("b c", True)]
        assert columns[1].type.lower().replace("decimal", "numeric") == "numeric(10,2)"
        assert [c.name for c in await databases.describe("sales.t.x", "db")] == ["a"]
        if url == postgres.url:
            assert names["kept"] == "view"
            assert [c.name for c in await databases.describe("kept", "db")] == ["one"]
            assert "private" not in names
            with pytest.raises(NotFoundError, match="'private'"):
                await databases.describe("private", "db")
        await databases.close()
