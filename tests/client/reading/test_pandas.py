"""Results as pandas frames, from a real server."""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pytest

from streamkit.client import AsyncClient
from streamkit.errors import UnimplementedError
from streamkit.testing import serve

TYPED = """
SELECT * FROM (VALUES
    (1::INTEGER, 1.5::DOUBLE, 'Näme', TIMESTAMPTZ '2026-01-02 03:04:05.000006+00', TRUE,
     12.50::DECIMAL(9, 2), '\\x00\\xFF'::BLOB, DATE '2026-01-02'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) AS t(number, real, name, moment, flag, price, blob, day)"""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    with duckdb.connect(str(tmp_path / "typed.duckdb")) as connection:
        connection.execute(f"CREATE TABLE typed AS {TYPED}")
    with sqlite3.connect(tmp_path / "loose.db") as loose:
        loose.execute("CREATE TABLE items(id INTEGER, name TEXT)")
        loose.executemany("INSERT INTO items VALUES (?, ?)", ((i, f"i{i}") for i in range(3000)))
    loose.close()
    databases = {"duck": f"duckdb:///{tmp_path}/typed.duckdb", "lite": f"{tmp_path}/loose.db"}
    async with serve(databases=databases) as address, AsyncClient(address) as client:
        yield client


async def test_values_keep_their_types(client: AsyncClient) -> None:
    frame = await client.query("SELECT * FROM typed", database="duck").to_pandas()

    first, nulls = frame.iloc[0], frame.iloc[1]
    assert list(frame) == ["number", "real", "name", "moment", "flag", "price", "blob", "day"]
    assert (first["number"], first["real"], first["name"]) == (1, 1.5, "Näme")
    assert first["moment"] == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert (first["flag"], first["price"], first["blob"]) == (True, Decimal("12.50"), b"\x00\xff")
    assert str(first["day"]).startswith("2026-01-02")
    assert nulls.isna().all()
    assert isinstance(frame["moment"].dtype, pandas.DatetimeTZDtype)
    assert first["moment"].utcoffset() == timedelta(0)


async def test_an_empty_result_has_its_columns(client: AsyncClient) -> None:
    frame = await client.query("SELECT * FROM typed WHERE number > 1", database="duck").to_pandas()

    assert (len(frame), len(frame.columns)) == (0, 8)
    assert frame["real"].dtype == "float64"
    empty = await client.query("SELECT * FROM items WHERE id < 0", database="lite").to_pandas()
    assert (len(empty), list(empty)) == (0, ["id", "name"])


async def test_many_batches_are_one_frame(client: AsyncClient) -> None:
    query = client.query("SELECT * FROM items ORDER BY id", database="lite", batch=100)
    frame = await query.to_pandas()

    assert frame["id"].dtype == "int64"
    assert frame["id"].tolist() == list(range(3000))
    assert frame["name"].iloc[2999] == "i2999"


async def test_without_pandas_it_says_what_to_install(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *arguments, **more)

    query = client.query("SELECT 1 AS a", database="lite")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnimplementedError, match="to_pandas needs pandas") as failed:
        await query.to_pandas()
    assert failed.value.hint == "pip install pandas"
