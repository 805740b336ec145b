"""The statements that store rows.

The sqlite3 module lets go of the interpreter lock at every step of SQLite, and to get it back next
to a busy loop can take milliseconds. So hundreds of rows are stored in one step: by a statement
that has the parameters of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from streamkit.journal.records.items import Row

__all__ = ["Insert"]

_MOST = 512
"""Rows of one statement."""


class Insert:
    """Stores any number of rows of one table. The first column is never NULL."""

    def __init__(self, table: str, columns: tuple[str, ...], verb: str = "insert") -> None:
        self._width = len(columns)
        row = f"({', '.join('?' * len(columns))})"
        # One statement for each power of two; the rows that are missing to it are NULL and left
        # out. A statement for each number of rows would be compiled again and again.
        self._statements = [
            f"{verb} into {table}({', '.join(columns)}) select * from"
            f" (values {', '.join([row] * size)}) where column1 is not null"
            for size in (1 << power for power in range(_MOST.bit_length()))
        ]

    def __call__(self, execute: Callable[[str, Sequence[Any]], object], rows: list[Row]) -> None:
        """Several statements for more than `MOST` rows: within a transaction, then."""
        for first in range(0, len(rows), _MOST):
            some = rows[first : first + _MOST]
            power = (len(some) - 1).bit_length()
            values = list(chain.from_iterable(some))
            values += [None] * (((1 << power) - len(some)) * self._width)
            execute(self._statements[power], values)
