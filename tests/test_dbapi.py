"""PEP 249 over a server's databases, and pandas on top of it."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from streamkit import dbapi
from streamkit.testing import serve

ROWS = 2500


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders(id INTEGER, item TEXT, price REAL, photo BLOB)")
    rows = [(i, f"item {i % 7}", i / 4, b"\xff" if i % 2 else None) for i in range(ROWS)]
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return str(path)


async def served(shop: str, use: Callable[[dbapi.Connection], None]) -> None:
    """Run blocking code on a connection to a server of that file."""

    def run(address: str) -> None:
        with dbapi.connect(address, database="shop") as connection:
            use(connection)

    async with serve(databases={"shop": shop}) as address:
        await asyncio.to_thread(run, address)


async def test_a_cursor_is_what_the_standard_says(shop: str) -> None:
    def use(connection: dbapi.Connection) -> None:
        cursor = connection.cursor()
        assert cursor.rowcount == -1
        cursor.execute("SELECT * FROM orders ORDER BY id")
        assert cursor.description is not None
        assert [column[0] for column in cursor.description] == ["id", "item", "price", "photo"]
        kinds = [column[1] for column in cursor.description]
        assert kinds[0] == dbapi.NUMBER
        assert kinds[1] == dbapi.STRING
        assert kinds[2] == dbapi.NUMBER != kinds[1]
        assert cursor.fetchone() == (0, "item 0", 0.0, None)
        assert cursor.fetchmany() == [(1, "item 1", 0.25, b"\xff")]
        assert len(cursor.fetchmany(1000)) == 1000
        assert len(cursor.fetchall()) == ROWS - 1002
        assert cursor.fetchone() is None
        assert cursor.fetchmany(3) == cursor.fetchall() == []
        assert cursor.rowcount == ROWS

    await served(shop, use)


async def test_parameters_and_another_statement_on_the_same_cursor(shop: str) -> None:
    def use(connection: dbapi.Connection) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT * FROM orders")
        cursor.fetchone()
        cursor.execute("SELECT id FROM orders WHERE id < :most", {"most": 2})
        assert list(cursor) == [(0,), (1,)]
        assert connection.execute("SELECT id FROM orders WHERE id = ?", [7]).fetchall() == [(7,)]
        connection.commit()
        connection.rollback()

    await served(shop, use)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM nothing", dbapi.ProgrammingError),
        ("DELETE FROM orders", dbapi.ProgrammingError),
        ("SELECT :missing", dbapi.ProgrammingError),
    ],
)
async def test_errors_are_of_the_standards_kinds(shop: str, sql: str, kind: type) -> None:
    def use(connection: dbapi.Connection) -> None:
        with pytest.raises(kind):
            connection.cursor().execute(sql)
        assert issubclass(kind, connection.Error)

    await served(shop, use)


async def test_misuse_is_told(shop: str) -> None:
    def use(connection: dbapi.Connection) -> None:
        cursor = connection.cursor()
        with pytest.raises(dbapi.InterfaceError, match="no statement"):
            cursor.fetchone()
        with pytest.raises(dbapi.NotSupportedError, match="read-only"):
            cursor.executemany("INSERT INTO orders VALUES (?)", [[1]])
        cursor.close()
        cursor.close()
        with pytest.raises(dbapi.InterfaceError, match="cursor is closed"):
            cursor.execute("SELECT 1")
        connection.close()
        with pytest.raises(dbapi.InterfaceError, match="connection is closed"):
            connection.cursor()

    await served(shop, use)


def test_nobody_there_is_an_operational_error() -> None:
    with dbapi.connect("127.0.0.1:1") as connection, pytest.raises(dbapi.OperationalError):
        connection.cursor().execute("SELECT 1")
    with pytest.raises(dbapi.InterfaceError):
        dbapi.connect("127.0.0.1:1", no_such_option=1)


async def test_pandas_reads_a_servers_database(shop: str) -> None:
    def use(connection: dbapi.Connection) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that pandas tests only SQLAlchemy and sqlite3
            read: Any = pandas.read_sql
            frame = read(
                "SELECT id, item, price FROM orders WHERE id < :most",
                connection,
                params={"most": 9},
            )
            parts = read("SELECT id FROM orders", connection, chunksize=1000)
            sizes = [len(part) for part in parts]
        assert list(frame.columns) == ["id", "item", "price"]
        assert frame["id"].dtype == "int64"
        assert frame["price"].sum() == pytest.approx(9.0)
        assert frame["item"].iloc[8] == "item 1"
        assert sizes == [1000, 1000, 500]

    await served(shop, use)
