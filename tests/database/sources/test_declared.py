"""The types that are announced for SQLite's columns do not depend on where the values begin."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from streamkit.database import Databases, SqliteSource
from streamkit.database.sources.sqlite.declared import declared_classes
from tests.database.queries import messages_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "late.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE f(id INTEGER PRIMARY KEY, a FLOAT, b VARCHAR(9), c, d DATE)")
    connection.executemany("INSERT INTO f(a, b) VALUES (?, ?)", [(None, None)] * 200 + [(0.5, 7)])
    connection.execute("CREATE VIEW v AS SELECT a AS x FROM f")
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    ("sql", "types"),
    [
        ("SELECT a, b, c FROM f", ["REAL", "TEXT", ""]),
        ("SELECT a, b, c FROM f WHERE a IS NOT NULL", ["REAL", "TEXT", ""]),
        ("SELECT x FROM v -- the view", ["REAL"]),
        ("WITH n AS (SELECT a FROM f) SELECT a FROM n;", ["REAL"]),
        ("SELECT NULL AS n", [""]),
        ("SELECT id, a FROM f", ["INTEGER", "REAL"]),
    ],
)
async def test_a_column_that_begins_with_nulls_has_its_declared_type(
    file: Path, sql: str, types: list[str]
) -> None:
    databases = Databases({"db": SqliteSource("db", file)})
    first, *_ = await messages_of(databases, sql, columns=True)
    assert [column.type for column in first.columns] == types
    await databases.close()


def test_what_cannot_be_told_is_not_guessed(file: Path) -> None:
    before = file.read_bytes()
    for sql in (
        "SELECT a FROM f WHERE a > ?",
        "DELETE FROM f",
        "SELECT 1; DROP TABLE f",
        "SELECT 1 AS a; DELETE FROM f",
        "nonsense",
    ):
        assert declared_classes(file, sql) == []
    assert declared_classes(file.parent / "none.db", "SELECT 1") == []
    assert file.read_bytes() == before
