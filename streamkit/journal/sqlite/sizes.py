"""How much of a store each of its tables takes, known without looking at what is stored.

SQLite tells the size of a file, not of a table. So what is stored and what is removed is measured,
each with the same expression, and the sums are kept in `meta`, in the transaction that changes
them. They are about right, and right enough to share the space out by.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from streamkit.journal.base import Stream
from streamkit.journal.sqlite.schema import TABLES

__all__ = ["MEASURES", "Sizes"]


def _measure(overhead: int, key: str, *texts: str) -> str:
    # As a blob: the length of a text ends at its first NUL. The key is in an index, too.
    parts = [f"ifnull(length(cast({text} as blob)), 0)" for text in texts]
    return " + ".join([f"{overhead} + 2 * length(cast({key} as blob))", *parts])


MEASURES = {
    "updates": _measure(64, "topic", "message", "metadata"),
    "logs": _measure(72, "service", "message", "fields"),
    "job_events": _measure(160, "job_id", "current_step", "service", "error", "traceparent"),
    "jobs": _measure(
        240, "job_id", "current_step", "service", "error", "cancel_reason", "traceparent"
    ),
    "dedupe": _measure(64, "producer", "answer"),
}
"""The bytes of one row of each table, with its indexes."""

_TEXTS = {"updates": (64, 1, (3, 4)), "logs": (72, 1, (5, 6))}
"""Of the tables with most rows: overhead, and the places of the key and of the other texts."""

_STREAMS = {table: stream for stream, table in TABLES.items()}
_SAMPLE = 512


class Sizes:
    """The bytes of each table. Changes are made within a transaction of the caller: `save` is part
    of it, and `forget` takes back what was changed since the last `keep`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        oldest: dict[Stream, int],
        following: dict[Stream, int],
    ) -> None:
        self._execute = connection.execute
        self._kept: dict[str, int] = {}
        for table in MEASURES:
            key = f"bytes.{table}"
            row = self._execute("select value from meta where key = ?", (key,)).fetchone()
            self._kept[table] = self._estimated(table, oldest, following) if row is None else row[0]
        self._now = dict(self._kept)

    def __getitem__(self, table: str) -> int:
        return self._now[table]

    def total(self) -> int:
        return sum(self._now.values())

    def add(self, table: str, size: int) -> None:
        self._now[table] = max(0, self._now[table] + size)

    def clear(self, table: str) -> None:
        """The table is empty: whatever was measured wrongly is right again."""
        self._now[table] = 0

    def of(self, table: str, where: str, parameters: Sequence[Any]) -> int:
        """The bytes of some rows that are there now."""
        row = self._execute(
            f"select ifnull(sum({MEASURES[table]}), 0) from {table} where {where}", parameters
        ).fetchone()
        return int(row[0])

    def of_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> int:
        """The bytes of the newest rows, which were just stored. As `of`, without another statement
        where there is a shorter way: each has to get the interpreter back from a busy loop."""
        if table not in _TEXTS:
            return self.of(table, "sequence >= ?", (rows[0][0],))
        overhead, key, others = _TEXTS[table]
        size = overhead * len(rows) + 2 * _bytes_of([row[key] for row in rows])
        for place in others:
            size += _bytes_of([row[place] for row in rows if row[place]])
        return size

    def of_jobs(self, ids: Iterable[str]) -> int:
        return self.of(
            "jobs", "job_id in (select value from json_each(?))", (json.dumps(list(ids)),)
        )

    def save(self) -> None:
        values = ", ".join(["(?, ?)"] * len(self._now))
        self._execute(
            f"insert or replace into meta values {values}",
            [value for table, size in self._now.items() for value in (f"bytes.{table}", size)],
        )

    def keep(self) -> None:
        self._kept = dict(self._now)

    def forget(self) -> None:
        self._now = dict(self._kept)

    def _estimated(
        self, table: str, oldest: dict[Stream, int], following: dict[Stream, int]
    ) -> int:
        """Of a store that was written before sizes were kept. Streams may be long: a sample."""
        stream = _STREAMS.get(table)
        if stream is None:
            return self.of(table, "true", ())
        first, count = oldest[stream], following[stream] - oldest[stream]
        if count <= _SAMPLE:
            return self.of(table, "true", ())
        some = [first + count * n // _SAMPLE for n in range(_SAMPLE)]
        size = self.of(table, "sequence in (select value from json_each(?))", (json.dumps(some),))
        return size * count // _SAMPLE


def _bytes_of(texts: list[str]) -> int:
    text = "".join(texts)
    return len(text) if text.isascii() else len(text.encode())
