"""Python values out of rows of text, from every database."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars
import pytest

from streamkit import Client
from streamkit.client import AsyncClient
from streamkit.client.reading.values import RowValues
from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import Column
from streamkit.testing import serve

TYPED = [
    ("INTEGER", "-7", -7),
    ("BIGINT", "9223372036854775807", 2**63 - 1),
    ("int8", "1", 1),
    ("REAL", "0.5", 0.5),
    ("double", "1.5e+10", 1.5e10),
    ("FLOAT", "inf", float("inf")),
    ("DECIMAL(10, 2)", "1.50", Decimal("1.50")),
    ("numeric", "1.50", Decimal("1.50")),
    ("BOOLEAN", "true", True),
    ("bool", "false", False),
    ("BLOB", "00ff", b"\x00\xff"),
    ("bytea", "", b""),
    ("DATE", "2026-01-31", date(2026, 1, 31)),
    ("date32[day]", "2026-01-31", date(2026, 1, 31)),
    ("TIME", "23:59:59.5", time(23, 59, 59, 500_000)),
    ("TIMESTAMP", "2026-01-31T23:59:59", datetime(2026, 1, 31, 23, 59, 59)),
    (
        "TIMESTAMP WITH TIME ZONE",
        "2026-01-31T23:59:59.5Z",
        datetime(2026, 1, 31, 23, 59, 59, 500_000, UTC),
    ),
    ("timestamptz", "infinity", "infinity"),
    ("uuid", "00000000-0000-0000-0000-0000000000ff", UUID(int=255)),
    ("VARCHAR", "1", "1"),
    ("INTEGER[]", "[1,2]", "[1,2]"),
    ("", "1", "1"),
    ("INTEGER", "not a number", "not a number"),
]


@pytest.mark.parametrize(("kind", "text", "value"), TYPED)
def test_a_value_is_what_its_column_says(kind: str, text: str, value: Any) -> None:
    values = RowValues([Column(name="a", type=kind), Column(name="b", type=kind)])
    (got, null) = values.of({"a": text})
    assert (got, type(got), null) == (value, type(value), None)


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(i INTEGER, r REAL, s TEXT, b BLOB)")
    connection.execute("INSERT INTO t VALUES (1, 0.5, 'x', x'00ff'), (NULL, NULL, NULL, NULL)")
    connection.commit()
    connection.close()
    return str(path)


RECORDS = [
    {"i": 1, "r": 0.5, "s": "x", "b": b"\x00\xff"},
    {"i": None, "r": None, "s": None, "b": None},
]


async def test_rows_have_python_values(shop: str) -> None:
    async with serve(databases={"shop": shop}) as address, AsyncClient(address) as client:
        async with client.query("SELECT * FROM t", database="shop") as query:
            assert [row async for row in query] == RECORDS
        async with client.query("SELECT i, r FROM t", database="shop") as query:
            assert [row async for row in query.texts()] == [{"i": "1", "r": "0.5"}, {}]
        async with client.query("SELECT count(*) AS n, sum(r) AS r FROM t", database="shop") as one:
            assert [row async for row in one] == [{"n": 2, "r": 0.5}], "a value has a type as well"
        async with client.query("SELECT i, s FROM t", database="shop") as query:
            assert [values async for values in query.tuples()] == [(1, "x"), (None, None)]
        frame = await client.query("SELECT * FROM t", database="shop").to_polars()
        assert frame.schema["i"] == polars.Int64
        assert frame.rows(named=True) == RECORDS
        with pytest.raises(InvalidArgumentError, match="columns=False"):
            async for _ in client.query("SELECT 1", columns=False):
                pass
        texts = client.query("SELECT 1 AS one", columns=False).texts()
        assert [row async for row in texts] == [{"one": "1"}]


async def test_and_in_blocking_code(shop: str) -> None:
    import asyncio

    def read(address: str) -> None:
        with Client(address) as client:
            with client.query("SELECT * FROM t", database="shop") as query:
                assert list(query) == RECORDS
            with client.query("SELECT i, s FROM t", database="shop") as query:
                assert list(query.tuples()) == [(1, "x"), (None, None)]
            with client.query("SELECT i FROM t", database="shop", columns=False) as query:
                with pytest.raises(InvalidArgumentError, match="columns=False"):
                    list(query)
                assert list(query.texts()) == [{"i": "1"}, {}]
            assert client.query("SELECT i FROM t", database="shop").to_polars().height == 2

    async with serve(databases={"shop": shop}) as address:
        await asyncio.to_thread(read, address)


def test_a_server_that_tells_no_columns_gives_its_text() -> None:
    assert RowValues([]).named({"n": "1"}) == {"n": "1"}
