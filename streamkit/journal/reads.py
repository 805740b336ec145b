"""Finding stored records again: SQL for selectors, run in threads on connections that only read.

Every read is one short statement, so that none holds back a checkpoint. A selector that comes to
a few exact keys is a merge of index walks, whose cost is bounded by what is wanted and not by
what is stored; any other walks along the sequences, a bounded number a time.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from streamkit.errors import StoreError
from streamkit.generated.streamservice import JobProgress
from streamkit.journal.base import Entry, Record, Selector, Stream
from streamkit.journal.jobs import Job
from streamkit.journal.reader import Page
from streamkit.journal.records import LEVELS, text_of
from streamkit.journal.ring import BATCH_RECORDS, cut
from streamkit.journal.rows import (
    COLUMNS,
    JOB_COLUMNS,
    item_from_row,
    job_from_row,
)
from streamkit.journal.schema import TABLES, store_error

__all__ = ["Reads"]

R = TypeVar("R")

_KEYS = {Stream.UPDATES: "topic", Stream.LOGS: "service", Stream.JOBS: "job_id"}
_MOST_WALKS = 32
"""Index walks that are merged; beyond that a walk along the sequences is cheaper."""
_SPAN = 16_384
"""Rows that one statement looks at when there is no index to help."""
_SCAN = 16
"""So many rows are looked at for one that is wanted, before the reader is told how far it is."""
_THREADS = 2
_LONGEST = 16 * 1024 * 1024
"""Bytes that one page may have as JSON."""
_NO_LIMIT = 1_000_000_000

Walk = tuple[str, tuple[Any, ...]]
"""One index walk: its WHERE and the parameters of it."""


class Reads:
    """The reading side of one store file. Calls wait for one of a few threads."""

    def __init__(self, path: str, frame: Callable[[Record], bytes] | None) -> None:
        self._uri = f"{Path(path).resolve().as_uri()}?mode=ro"
        self._frame = frame
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="journal-read")
        self._connections: list[sqlite3.Connection] = []
        self._limits = dict.fromkeys(Stream, BATCH_RECORDS)
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
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.execute("pragma query_only = 1")
        connection.execute("pragma busy_timeout = 5000")
        return connection

    def page(
        self, connection: sqlite3.Connection, selector: Selector, after: int, end: int
    ) -> Page[Record]:
        """Wanted records after a sequence, up to a stored one."""
        limit = self._limits[selector.stream]
        while True:
            try:
                return self._page(connection, selector, after, end, limit)
            except sqlite3.DataError:  # longer than a page may be
                if limit == 1:
                    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _NO_LIMIT)
                limit = max(1, limit // 8)

    def _page(
        self, connection: sqlite3.Connection, selector: Selector, after: int, end: int, limit: int
    ) -> Page[Record]:
        stream = selector.stream
        walks = self._walks(connection, selector)
        scanning = walks is None and bool(selector.patterns)
        if walks is None and (selector.patterns or selector.min_rank):
            limit = limit * _SCAN if limit > _SCAN else limit
        if walks is None:
            end = min(end, after + limit)
        oldest, rows = _fetch(connection, selector, walks, (after, end, limit))
        known: dict[tuple[str, int], bool] = {}
        found: list[Entry] = []
        build = item_from_row[stream]
        for row in rows:
            if scanning:
                key = (row[1], row[3] if stream is Stream.LOGS else 0)
                wanted = known.get(key)
                if wanted is None:
                    wanted = known[key] = selector.matches(*key)
                if not wanted:
                    continue
            found.append(build(row))
            if len(found) == BATCH_RECORDS:
                break
        items = cut(found)
        if len(items) < len(found):
            self._limits[stream] = max(16, len(items) * 3 // 2)
        else:
            self._limits[stream] = min(BATCH_RECORDS, 2 * self._limits[stream])
        full = len(found) == BATCH_RECORDS or (walks is not None and len(rows) == limit)
        covered = items[-1].sequence if full or len(items) < len(found) else end
        if self._frame is not None:
            for item in items:
                item.frame = self._frame(item.message)
        return Page(items, covered, end + 1 if oldest is None else oldest)

    def first_of_last(
        self, connection: sqlite3.Connection, selector: Selector, count: int, newest: int
    ) -> int | None:
        """The sequence of the first of the last `count` wanted records up to `newest`."""
        table = TABLES[selector.stream]
        walks = self._walks(connection, selector)
        if walks is None:
            return self._first_of_last_by_scan(connection, selector, count, newest)
        if not walks:
            return None
        source = " union all ".join(
            f"select sequence from {table} where {where} and sequence <= ?" for where, _ in walks
        )
        parameters = [value for _, values in walks for value in (*values, newest)]
        row = connection.execute(
            f"select min(sequence) from ({source} order by sequence desc limit ?)",
            (*parameters, count),
        ).fetchone()
        return None if row[0] is None else int(row[0])

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

    def job(self, connection: sqlite3.Connection, job_id: str) -> JobProgress | None:
        found = self._jobs(connection, "job_id = ?", (job_id,), 1)
        return found[0].progress() if found else None

    def jobs(
        self,
        connection: sqlite3.Connection,
        statuses: tuple[str, ...],
        since: datetime | None,
        limit: int,
    ) -> list[JobProgress]:
        """The last changed jobs, newest first."""
        where = ["true"]
        parameters: list[Any] = []
        if statuses:
            where.append(f"status in ({', '.join('?' * len(statuses))})")
            parameters += statuses
        if since is not None:
            where.append("updated_at >= ?")
            parameters.append(text_of(since))
        found = self._jobs(connection, " and ".join(where), tuple(parameters), limit)
        return [job.progress() for job in found]

    def _jobs(
        self,
        connection: sqlite3.Connection,
        where: str,
        parameters: tuple[Any, ...],
        limit: int,
    ) -> list[Job]:
        found = connection.execute(
            f"select {', '.join(JOB_COLUMNS)} from jobs where {where}"
            " order by sequence desc limit ?",
            (*parameters, limit),
        )
        return [job_from_row(row) for row in found]

    def _first_of_last_by_scan(
        self, connection: sqlite3.Connection, selector: Selector, count: int, newest: int
    ) -> int | None:
        stream = selector.stream
        table, key = TABLES[stream], _KEYS[stream]
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
                        return first
            if len(found) < _SPAN:
                return first
            newest = found[-1][0] - 1

    def _walks(self, connection: sqlite3.Connection, selector: Selector) -> list[Walk] | None:
        """The index walks that a selector comes to, or None if they are too many."""
        stream = selector.stream
        if stream is Stream.LOGS:
            ranks = range(selector.min_rank, len(LEVELS))
        elif selector.patterns:
            ranks = range(1)
        else:
            return None
        if stream is Stream.LOGS and not selector.patterns and not selector.min_rank:
            return None
        most = _MOST_WALKS // max(1, len(ranks))
        if selector.exact():
            keys = sorted(set(selector.patterns))
        else:
            # Which keys are there? So many hops along the index as there are keys.
            every = _distinct(connection, TABLES[stream], _KEYS[stream], 8 * most)
            if every is None:
                return None
            keys = [key for key in every if any(selector.matches(key, rank) for rank in ranks)]
        if len(keys) > most:
            return None
        if stream is Stream.LOGS:
            return [("service = ? and severity = ?", (key, rank)) for key in keys for rank in ranks]
        return [(f"{_KEYS[stream]} = ?", (key,)) for key in keys]


def _fetch(
    connection: sqlite3.Connection,
    selector: Selector,
    walks: list[Walk] | None,
    window: tuple[int, int, int],
) -> tuple[int | None, list[Any]]:
    """The oldest sequence and the rows after, up to, at most: of one snapshot, in one step."""
    after, end, limit = window
    table = TABLES[selector.stream]
    columns = ", ".join(COLUMNS[selector.stream])
    if walks is None:
        walks = [("severity >= ?", (selector.min_rank,)) if selector.min_rank else ("true", ())]
    parts = [
        f"select {columns} from {table} where {where} and sequence > ? and sequence <= ?"
        for where, _ in walks or [("false", ())]
    ]
    parameters = [value for _, values in walks or [("", ())] for value in (*values, after, end)]
    oldest, text = connection.execute(
        f"select (select min(sequence) from {table}), json_group_array(json_array({columns}))"
        f" from ({' union all '.join(parts)} order by sequence limit ?)",
        (*parameters, limit),
    ).fetchone()
    return oldest, json.loads(text)


def _distinct(connection: sqlite3.Connection, table: str, key: str, most: int) -> list[str] | None:
    found = connection.execute(
        f"with recursive keys(name) as (select min({key}) from {table} union all"
        f" select (select min({key}) from {table} where {key} > name) from keys"
        " where name is not null)"
        " select name from keys where name is not null limit ?",
        (most + 1,),
    ).fetchall()
    return None if len(found) > most else [name for (name,) in found]
