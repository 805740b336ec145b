"""SQLite's functions that take their time in a product of lengths, replaced: they say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit.database import Databases, open_source
from tests.database.engines import make_sqlite
from tests.database.queries import rows_of


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("instr('abcabc', 'c')", "3"),
        ("instr('abc', 'x')", "0"),
        ("instr(x'00ff', x'ff')", "2"),
        ("instr(1234, 3)", "3"),
    ],
)
async def test_a_place_is_counted_from_one(tmp_path: Path, expression: str, text: str) -> None:
    databases = Databases({"db": open_source("db", make_sqlite(tmp_path).url)})
    assert await rows_of(databases, f"SELECT {expression} AS a") == [{"a": text}]
    await databases.close()
