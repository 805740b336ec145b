"""Where the lines of each level are: filled in for stores that were written before it was kept.

From the newest line back, so that what people ask for most often comes first, in steps between the
writes and by their thread.
"""

from __future__ import annotations

import sqlite3

__all__ = ["Levels", "known_from"]

_STEP = 4000
_KEY = "levels.from"


def known_from(connection: sqlite3.Connection) -> int:
    """The sequence from which on `log_levels` holds every line."""
    row = connection.execute("select value from meta where key = ?", (_KEY,)).fetchone()
    return int(row[0])


class Levels:
    """Fills `log_levels` of one store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._from = known_from(connection)

    def step(self, oldest: int) -> bool:
        """Add some lines; False if all are there. Raises sqlite3.Error."""
        if self._from <= oldest:
            return False
        first = max(oldest, self._from - _STEP)
        execute = self._connection.execute
        execute("begin immediate")
        try:
            execute(
                "insert or ignore into log_levels select severity, sequence from logs"
                " where sequence >= ? and sequence < ?",
                (first, self._from),
            )
            execute("insert or replace into meta values(?, ?)", (_KEY, first))
            execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                execute("rollback")
            raise
        self._from = first
        return True
