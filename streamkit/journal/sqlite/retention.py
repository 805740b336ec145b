"""What is too old or too much is removed in small steps, between the writes and by their thread.

A step removes one chunk of the oldest records of one stream, or gives a number of free pages back
to the file system. What `marks` says about when a sequence was recorded decides about age, so no
table needs an index on its times. The newest sequence of a stream is kept in `meta` before its
records go, so that no number is ever given twice.

Writes go on between the steps, up to a point: a store that is a quarter above its bound is brought
back below it first. The WAL is kept within a quarter of the bound as well, also when readers, who
hold back SQLite's own checkpoints, never leave a pause.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime, timedelta

from streamkit import config
from streamkit.journal.base import TERMINAL, Stream
from streamkit.journal.records.items import text_of, time_of
from streamkit.journal.rules.dedupe import AGE
from streamkit.journal.sqlite.schema import TABLES

__all__ = ["Retention"]

_CHUNK = 2000
_VACUUM_PAGES = 1000
_FREE_PAGES_KEPT = 128
_MOST_REQUESTS = 1_000_000
_SECOND = timedelta(seconds=1)
_WAL_LARGE = 32 * 1024 * 1024
_WAL_SMALL = 1024 * 1024


class Retention:
    """Removes from one store. `oldest` and `following` are the store's own, kept up to date."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        settings: config.Retention,
        oldest: dict[Stream, int],
        following: dict[Stream, int],
    ) -> None:
        self._connection = connection
        self._path = path
        self._settings = settings
        self._oldest = oldest
        self._following = following
        self._cuts: dict[Stream, int] = {}
        self._shrunk = False
        bound = settings.max_bytes
        self._most_wal = min(_WAL_LARGE, max(bound // 4, _WAL_SMALL)) if bound else _WAL_LARGE
        self._next_wal = self._most_wal
        self.behind = False
        """Whether the last step left so much above the bound that writes have to wait."""

    def look(self, now: datetime) -> None:
        """Find out what time made too old; the steps that follow remove it."""
        execute = self._connection.execute
        self._forget_requests(now)
        if not self._settings.max_age:
            return
        horizon = now - timedelta(seconds=self._settings.max_age)
        for stream in TABLES:
            # A mark stands for its second: all before it is older, and what it marks is, too,
            # once that second is over.
            row = execute(
                "select sequence, time from marks where stream = ? and time <= ?"
                " order by time desc limit 1",
                (stream, text_of(horizon)),
            ).fetchone()
            if row is None:
                continue
            cut, time = row
            if time_of(time) + _SECOND <= horizon:
                (following,) = execute(
                    "select min(sequence) from marks where stream = ? and sequence > ?",
                    (stream, cut),
                ).fetchone()
                cut = following or self._following[stream]
            self._cuts[stream] = cut
        ended = ", ".join(f"'{status}'" for status in sorted(TERMINAL))
        execute(
            f"delete from jobs where status in ({ended}) and updated_at < ?", (text_of(horizon),)
        )

    def step(self) -> bool:
        """Do one step; False if there is nothing left to do. Raises sqlite3.Error."""
        self.behind = False
        if self._wal_bytes() > self._next_wal:
            self._empty_wal()
        for stream, cut in self._cuts.items():
            if self._oldest[stream] < cut:
                self._remove(stream, min(cut, self._oldest[stream] + _CHUNK))
                return True
        self._cuts.clear()
        pages, free, size = self._pages()
        over = (pages - free) * size - self._settings.max_bytes
        if self._settings.max_bytes and over > 0:
            first = self._stream_with_oldest()
            if first is not None:
                chunk = self._chunk((pages - free) * size, over)
                self._remove(first, self._oldest[first] + chunk)
                self.behind = over > self._settings.max_bytes // 4
                return True
        if free > _FREE_PAGES_KEPT + pages // 8:  # fewer are soon used again
            # Through execute() this pragma frees one page only.
            self._connection.executescript(f"pragma incremental_vacuum({_VACUUM_PAGES})")
            self._shrunk = True
            return True
        if self._shrunk:
            self._shrunk = False
            self._empty_wal()
        return False

    def _empty_wal(self) -> None:
        """Checkpoint and cut the WAL, waiting a moment for the readers that are in the way. If
        one stays, the next try comes when the WAL has grown by as much again."""
        self._connection.execute("pragma busy_timeout = 20")
        self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        self._connection.execute("pragma busy_timeout = 5000")
        self._next_wal = self._wal_bytes() + self._most_wal

    def _pages(self) -> tuple[int, int, int]:
        def pragma(name: str) -> int:
            value: int = self._connection.execute(f"pragma {name}").fetchone()[0]
            return value

        return pragma("page_count"), pragma("freelist_count"), pragma("page_size")

    def _chunk(self, used: int, over: int) -> int:
        """How many records are about as much as there is too much."""
        records = sum(self._following[s] - self._oldest[s] for s in TABLES)
        return max(1, min(_CHUNK, over * records // used + 1))

    def _stream_with_oldest(self) -> Stream | None:
        """The stream whose oldest record was recorded first, if any holds a record."""
        found: list[tuple[str, Stream]] = []
        for stream in TABLES:
            if self._oldest[stream] < self._following[stream]:
                (time,) = self._connection.execute(
                    "select max(time) from marks where stream = ? and sequence <= ?",
                    (stream, self._oldest[stream]),
                ).fetchone()
                found.append((time or "", stream))
        return min(found)[1] if found else None

    def _remove(self, stream: Stream, cut: int) -> None:
        cut = min(cut, self._following[stream])
        execute = self._connection.execute
        execute("begin immediate")
        try:
            execute(
                "insert or replace into meta values(?, ?)",
                (f"next.{stream}", self._following[stream]),
            )
            execute(f"delete from {TABLES[stream]} where sequence < ?", (cut,))
            execute(
                "delete from marks where stream = ? and sequence <"
                " (select max(sequence) from marks where stream = ? and sequence <= ?)",
                (stream, stream, cut),
            )
            execute("commit")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("rollback")
            raise
        self._oldest[stream] = cut

    def _forget_requests(self, now: datetime) -> None:
        execute = self._connection.execute
        horizon = text_of(now - timedelta(seconds=AGE))
        execute("delete from dedupe where time < ?", (horizon,))
        row = execute(
            "select time from dedupe order by time desc limit 1 offset ?", (_MOST_REQUESTS,)
        ).fetchone()
        if row is not None:
            execute("delete from dedupe where time <= ?", row)

    def _wal_bytes(self) -> int:
        try:
            return os.path.getsize(f"{self._path}-wal")
        except OSError:
            return 0
