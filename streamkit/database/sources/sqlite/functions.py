"""Replacements for the SQL functions of SQLite that one call can keep busy for many seconds.

A statement is interrupted between the instructions of SQLite's virtual machine, never inside one.
Values are bounded in size, which bounds nearly every function; these two are not bounded by it.
"""

from __future__ import annotations

import atexit
import re
import sqlite3
import threading
from functools import cache
from typing import Any

__all__ = ["replace_unbounded"]

_REPEATED_CHARACTER = re.compile(r"%[^%A-Za-z]*\.(\*|\d{4,})[^%A-Za-z]*c")
_helper_lock = threading.Lock()


def replace_unbounded(connection: sqlite3.Connection) -> None:
    """Make instr, printf and format of this connection safe to call with any arguments."""
    connection.create_function("instr", 2, _instr, deterministic=True)
    for name in ("printf", "format"):
        connection.create_function(name, -1, _printf, deterministic=True)


def _instr(text: Any, part: Any) -> int | None:
    """SQLite's own search takes time in the product of both lengths."""
    if text is None or part is None:
        return None
    if isinstance(text, bytes) and isinstance(part, bytes):
        return text.find(part) + 1
    return _as_text(text).find(_as_text(part)) + 1


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _printf(*arguments: Any) -> Any:
    """As SQLite does, by SQLite, but for %.Nc, which repeats a character without regard to any
    limit."""
    if not arguments:
        return None
    if isinstance(arguments[0], str) and _REPEATED_CHARACTER.search(arguments[0]):
        raise ValueError("%c with a long precision")
    marks = ", ".join("?" * len(arguments))
    with _helper_lock:
        return _helper().execute(f"SELECT printf({marks})", arguments).fetchone()[0]


@cache
def _helper() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
    atexit.register(connection.close)
    return connection
