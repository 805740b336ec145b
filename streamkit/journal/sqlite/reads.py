"""Finding stored records again: SQL for selectors, run in threads on connections that only read.

Every read is one short statement, so that none holds back a checkpoint. How records are read in
order, page by page, is in pages.py.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from streamkit.errors import StoreError
from streamkit.journal.base import Record, Selector, Stream
from streamkit.journal.live.reader import Page
from streamkit.journal.records.items import text_of
from streamkit.journal.sqlite.pages import LONGEST, Pages
from streamkit.journal.sqlite.schema import TABLES, store_error
from streamkit.journal.sqlite.walks import KEYS, walks_of

__all__ = ["Reads"]

R = TypeVar("R")

_SPAN = 16_384
"""Rows that one statement looks at when there is no index to help."""
_MOST_HOPS = 20_000
"""Records that are counted one by one along an index."""
_THREADS = 2
_CACHE_KIB = 8192
"""Of each connection, as far as it is used: a pattern that begins with a wildcard comes to one page
of an index for each key, and finds it again."""


class Reads:
    """The reading side of one store file. Calls wait for one of a few threads."""

    def __init__(self, path: str) -> None:
        self._uri = f"{Path(path).resolve().as_uri()}?mode=ro"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="journal-read")
        self._connections: list[sqlite3.Connection] = []
        self._pages = Pages()
        self._closed = False

    async def run(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call function(connection, *arguments) in a thread. Raises StoreError."""
        if self._closed:
            raise StoreError("the journal is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, function, arguments)

    def close(self) -> None:
        """Wait for the reads under way and close the connections. May be called twice."""
        self._closed = True
        self._threads.shutdown(wait=True)
        while self._connections:
            self._connections.pop().close()

    def _call(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> R:
        try:
            connection = self._connections.pop() if self._connections else self._connect()
            try:
                return function(connection, *arguments)
            finally:
                self._connections.append(connection)
        except sqlite3.Error as error:
            raise store_error(error) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, isolation_level=None, check_same_thread=False
        )
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        connection.execute("pragma query_only = 1")
        connection.execute(f"pragma cache_size = -{_CACHE_KIB}")
        connection.execute("pragma busy_timeout = 5000")
        return connection

    def page(
        self, connection: sqlite3.Connection, selector: Selector, after: int, end: int
    ) -> Page[Record]:
        """Wanted records after a sequence, up to a stored one."""
        return self._pages.read(connection, selector, after, end)

    def first_of_last(
        self, connection: sqlite3.Connection, selector: Selector, count: int, newest: int
    ) -> int | None:
        """The sequence of the first of the last `count` wanted records up to `newest`."""
        walks = walks_of(connection, selector)
        if walks is None:
            return self._first_of_last_by_scan(connection, selector, count, newest)[0]
        place: int | None = None
        if not walks.are_few:  # many keys may be common ones: then the newest records will do
            place, left, newest = self._first_of_last_by_scan(
                connection, selector, count, newest, _SPAN
            )
            if not left or not newest:
                return place
            if left > _MOST_HOPS:
                further, *_ = self._first_of_last_by_scan(connection, selector, left, newest)
                return place if further is None else further
            count = left
        found, left = walks.nth_before(connection, count, newest)
        if found is not None and found < walks.complete_from:
            return self._first_of_last_by_scan(connection, selector, count, newest)[0]
        place = place if found is None else found
        if left and walks.complete_from:
            below = min(newest, walks.complete_from - 1)
            further, *_ = self._first_of_last_by_scan(connection, selector, left, below)
            place = place if further is None else further
        return place

    def place_since(
        self, connection: sqlite3.Connection, stream: Stream, since: datetime, newest: int
    ) -> int:
        """The sequence before the first record that was recorded at or after a time.

        Marks tell it to the second; within the second the records' own times do, as far as they
        lie in it.
        """
        execute = connection.execute
        time = text_of(since)
        later = execute(
            "select min(sequence) from marks where stream = ? and time >= ?", (stream, time)
        ).fetchone()[0]
        end = newest + 1 if later is None else min(later, newest + 1)
        mark = execute(
            "select sequence, time from marks where stream = ? and time < ?"
            " order by time desc limit 1",
            (stream, time),
        ).fetchone()
        if mark is None or mark[1][:19] != time[:19]:
            return int(end) - 1  # nothing was recorded in the first part of that second
        within = execute(
            f"select min(sequence) from {TABLES[stream]} where sequence >= ? and sequence < ?"
            " and (time >= ? or time < ?)",
            (mark[0], end, time, mark[1]),
        ).fetchone()[0]
        return int(end if within is None else within) - 1

    def _first_of_last_by_scan(
        self,
        connection: sqlite3.Connection,
        selector: Selector,
        count: int,
        newest: int,
        most: int | None = None,
    ) -> tuple[int | None, int, int]:
        """The same, along at most so many records: the sequence arrived at, how many are left to
        count, and the sequence up to which no record was looked at."""
        stream = selector.stream
        table, key = TABLES[stream], KEYS[stream]
        rank = "severity" if stream is Stream.LOGS else "0"
        first: int | None = None
        while True:
            found = connection.execute(
                f"select sequence, {key}, {rank} from {table} where sequence <= ?"
                " order by sequence desc limit ?",
                (newest, _SPAN),
            ).fetchall()
            for sequence, name, severity in found:
                if selector.matches(name, severity):
                    first = sequence
                    count -= 1
                    if not count:
                        return first, 0, sequence - 1
            if len(found) < _SPAN:
                return first, count, 0
            newest = found[-1][0] - 1
            if most is not None:
                most -= len(found)
                if most <= 0:
                    return first, count, newest
