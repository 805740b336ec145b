"""A SQLite connection on which hostile SQL can only read, and only within limits.

`mode=ro` alone is not read-only: ATTACH creates files, VACUUM INTO writes copies, PRAGMA undoes
query_only. What holds is the authorizer, which SQLite asks about every action of a statement while
it compiles it: everything is denied that is not on the short list here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

from streamkit.database.sources.sqlite.functions import replace_unbounded

__all__ = ["connect_read_only", "guard"]

_DENIED_FUNCTIONS = frozenset(
    {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlar_uncompress"}
)
_CATALOGUE = frozenset({"sqlite_master", "sqlite_schema"})
_EPONYMOUS = (
    "SELECT 1 FROM json_each('[]')",
    "SELECT 1 FROM json_tree('[]')",
)
"""Table-valued functions that read no file; each declares itself on its first use."""

_MAX_SQL = 1_000_000
_BUSY_SECONDS = 1.0
_CACHE_KIB = 2048
_COLUMNS = 64
"""Result columns that are always allowed; every one may hold a value of the largest size."""


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open an existing file for reading; the statements of the caller are trusted until `guard`.

    Raises sqlite3.Error. Another thread may interrupt or close the connection.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=0,
    )
    try:
        # Text stays the bytes that it is: no object of str per value, and what is not UTF-8
        # is replaced by the encoder instead of failing the row.
        connection.text_factory = bytearray
        connection.execute("PRAGMA trusted_schema=0")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store=1")  # files: a big sort spills instead of growing
        connection.execute("PRAGMA query_only=1")
    except BaseException:
        connection.close()
        raise
    return connection


def guard(
    connection: sqlite3.Connection,
    *,
    hidden: Collection[str],
    max_value: int,
    stop: Callable[[], bool],
    instructions: int = 50_000,
) -> None:
    """From now on the connection only reads, within limits, and ends when `stop` says so.

    `hidden` tables do not exist for it. No value may grow over `max_value` bytes. `stop` is asked
    every so many instructions of SQLite's virtual machine.
    """
    _connect_virtual_tables(connection)
    replace_unbounded(connection)
    for limit, value in (
        (sqlite3.SQLITE_LIMIT_COLUMN, _COLUMNS + 2 * _widest_table(connection)),
        (sqlite3.SQLITE_LIMIT_LENGTH, max_value),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 200),
        (sqlite3.SQLITE_LIMIT_VDBE_OP, 250_000),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
    ):
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorizer(frozenset(name.lower() for name in hidden)))
    connection.set_progress_handler(stop, instructions)


def _connect_virtual_tables(connection: sqlite3.Connection) -> None:
    """Use every virtual table once: declaring itself needs actions that a query must not have."""
    created = connection.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND sql LIKE 'create virtual table%'"
    )
    statements = [
        f'SELECT 1 FROM "{_name(row[0])}" LIMIT 0'  # a name out of the catalogue, quoted
        for row in created.fetchall()
    ]
    for statement in (*_EPONYMOUS, *statements):
        try:
            connection.execute(statement).close()
        except sqlite3.Error:
            continue  # a module that this SQLite does not have; the query will say so


def _widest_table(connection: sqlite3.Connection) -> int:
    try:
        found = connection.execute(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM sqlite_master AS m,"
            " pragma_table_info(m.name) GROUP BY m.name)"
        ).fetchone()
    except sqlite3.Error:
        return 0  # a table of a module that this SQLite does not have
    return found[0] or 0


def _name(value: bytearray) -> str:
    return value.decode(errors="replace").replace('"', '""')


def _authorizer(
    hidden: frozenset[str],
) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    def decide(
        action: int, first: str | None, second: str | None, _db: str | None, _by: str | None
    ) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_DENY if is_hidden(first or "") else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            denied = (second or "").lower() in _DENIED_FUNCTIONS
            return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None:
            return sqlite3.SQLITE_OK  # full text search looks whether its index changed
        return sqlite3.SQLITE_DENY

    def is_hidden(table: str) -> bool:
        table = table.lower()
        if table in hidden or table.startswith("pragma_"):
            return True
        return table.startswith("sqlite_") and table not in _CATALOGUE

    return decide
