"""What storage class the columns of a statement are declared to have.

SQLite types values, not columns: of a column that begins with NULLs the values say nothing yet.
Its declaration does, for SQLite converts what is stored there.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

__all__ = ["declared_classes"]

_AFFINITIES = (
    ("INT", "INTEGER"),
    ("CHAR", "TEXT"),
    ("CLOB", "TEXT"),
    ("TEXT", "TEXT"),
    ("BLOB", ""),
    ("REAL", "REAL"),
    ("FLOA", "REAL"),
    ("DOUB", "REAL"),
)
"""In the order of SQLite's own rules; a BLOB column takes values of every class."""


def declared_classes(path: Path, sql: str) -> list[str]:
    """The class of each column, "" where none is declared; [] where it cannot be told, as of a
    statement with parameters. The statement is compiled, not run."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    except sqlite3.Error:
        return []
    try:
        connection.execute(f"CREATE TEMP VIEW streamkit AS {sql.rstrip().rstrip(';')}\n")
        found = connection.execute("SELECT type FROM pragma_table_info('streamkit')").fetchall()
    except (sqlite3.Error, sqlite3.Warning):
        return []
    finally:
        connection.close()
    return [_class(str(kind).upper()) for (kind,) in found]


def _class(declared: str) -> str:
    return next((name for part, name in _AFFINITIES if part in declared), "")
