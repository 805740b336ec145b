"""What is too old or too much is removed in small steps, between the writes and by their thread.

A step removes one chunk of the oldest rows of one table, or gives a number of free pages back to
the file system. What `marks` says about when a sequence was recorded decides about age, so no
table needs an index on its times. The newest sequence of a stream is kept in `meta` before its
records go, so that no number is ever given twice.

What is too much goes where the oldest is, among the tables that take more than their share: an
eighth of the bound is every table's own, whatever the others hold. So nobody who fills one of them
empties another, and what was acknowledged a moment ago is not the first to go. Jobs that have not
ended stay; how many there may be is for the store to say.

Writes go on between the steps, up to a point: a store that is a quarter above its bound is brought
back below it first. The WAL is kept within a quarter of the bound as well, also when readers, who
hold back SQLite's own checkpoints, never leave a pause. A reader that stays all the same is told
of in `pinned`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta

from streamkit import config
from streamkit.journal.base import TERMINAL, Pruned, Stream
from streamkit.journal.records.items import text_of, time_of
from streamkit.journal.rules.dedupe import AGE
from streamkit.journal.sqlite.rules import Rules, forecast
from streamkit.journal.sqlite.schema import TABLES
from streamkit.journal.sqlite.sizes import MEASURES, Sizes

__all__ = ["SHARE", "Retention", "forecast_all", "wal_bound"]

SHARE = 8
"""Each table may keep this part of the bound: one of so many."""

_CHUNK = 2000
_JOBS_CHUNK = 500
_REQUEST_COST = 256
_VACUUM_PAGES = 1000
_FREE_PAGES_KEPT = 128
_NO_END = 1 << 62
_SECOND = timedelta(seconds=1)
_WAL_LARGE = 32 * 1024 * 1024
_WAL_SMALL = 1024 * 1024
_ENDED = sorted(TERMINAL)


def wal_bound(settings: config.Retention) -> int:
    """The bytes that the WAL of a store may have before readers are in its way."""
    bound = settings.max_bytes
    return min(_WAL_LARGE, max(bound // 4, _WAL_SMALL)) if bound else _WAL_LARGE


def forecast_all(
    connection: sqlite3.Connection, settings: config.Retention, now: datetime
) -> list[Pruned]:
    """What age and the rules would remove now: of each stream as a whole, then by each rule."""
    found = []
    for stream, table in TABLES.items():
        cut = 0
        if settings.max_age:
            cut = _cut_of_age(connection, stream, now - timedelta(seconds=settings.max_age))
        count, size = connection.execute(
            f"select count(*), ifnull(sum({MEASURES[table]}), 0) from {table} where sequence < ?",
            (cut,),
        ).fetchone()
        found.append(Pruned(stream, "", count, size))
    return found + forecast(connection, settings.rules, now)


def _cut_of_age(connection: sqlite3.Connection, stream: Stream, horizon: datetime) -> int:
    """The sequence before which everything was recorded before a time, as far as marks tell: a
    mark stands for its second, and what it marks is older, too, once that second is over."""
    row = connection.execute(
        "select sequence, time from marks where stream = ? and time <= ?"
        " order by time desc limit 1",
        (stream, text_of(horizon)),
    ).fetchone()
    if row is None:
        return 0
    cut, time = row
    if time_of(time) + _SECOND <= horizon:
        (following,) = connection.execute(
            "select min(sequence) from marks where stream = ? and sequence > ?", (stream, cut)
        ).fetchone()
        return int(following or _NO_END)
    return int(cut)


class Retention:
    """Removes from one store. The dictionaries and sizes are the store's own, kept up to date."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        options: config.JournalOptions,
        oldest: dict[Stream, int],
        following: dict[Stream, int],
        sizes: Sizes,
    ) -> None:
        self._connection = connection
        self.path = path
        self._oldest = oldest
        self._following = following
        self._sizes = sizes
        self._cuts: dict[Stream, int] = {}
        self._horizon = ""
        self._requests_horizon = ""
        self._shrunk = False
        self.removed: dict[tuple[str, str], int] = {
            (stream.value, why): 0 for stream in TABLES for why in ("age", "size", "rule")
        }
        """Records, by stream and by why."""
        self.keep(options)
        self.behind = False
        """Whether the last step left so much above the bound that writes have to wait."""
        self.pinned = False
        """Whether a reader kept the WAL from being emptied when it was too large."""

    def keep(self, options: config.JournalOptions) -> None:
        """Keep what these options say, from the next look on."""
        self._settings = options.retention
        bound = options.retention.max_bytes
        self._most_requests = min(options.remembered_bytes, bound // SHARE or 1 << 62)
        self._rules = Rules(self._connection, options.retention.rules, self._remove_some)
        self._most_wal = wal_bound(options.retention)
        self._next_wal = self._most_wal

    def look(self, now: datetime) -> None:
        """Find out what time made too old; the steps that follow remove it."""
        self._next_wal = self._most_wal
        self._requests_horizon = text_of(now - timedelta(seconds=AGE))
        self._rules.look(now)
        if not self._settings.max_age:
            return
        horizon = now - timedelta(seconds=self._settings.max_age)
        self._horizon = text_of(horizon)
        for stream in TABLES:
            cut = _cut_of_age(self._connection, stream, horizon)
            if cut:
                self._cuts[stream] = min(cut, self._following[stream])

    def step(self) -> bool:
        """Do one step; False if there is nothing left to do. Raises sqlite3.Error."""
        self.behind = self.pinned = False
        self._relieve_wal()
        return self.remove() or self._give_back()

    def remove(self) -> bool:
        """Remove some of what is too old or too much; False if there is none."""
        return self._remove_old() or self._rules.step() or self._remove_too_much()

    def _give_back(self) -> bool:
        """Give some free pages to the file system."""
        pages, free, _ = self._pages()
        if free > _FREE_PAGES_KEPT + pages // 8:  # fewer are soon used again
            # Through execute() this pragma frees one page only.
            self._connection.executescript(f"pragma incremental_vacuum({_VACUUM_PAGES})")
            self._shrunk = True
            return True
        if self._shrunk:
            self._shrunk = False
            self._empty_wal()
        return False

    # ---- by age ----

    def _remove_old(self) -> bool:
        for stream, cut in self._cuts.items():
            if self._oldest[stream] < cut:
                self._remove(stream, min(cut, self._oldest[stream] + _CHUNK), "age")
                return True
        self._cuts.clear()
        if self._horizon:
            if self._remove_jobs(self._horizon):
                return True
            self._horizon = ""
        if self._requests_horizon:
            oldest = self._oldest_request()
            if oldest is not None and oldest < self._requests_horizon:
                self._remove_requests(self._requests_horizon)
                return True
            self._requests_horizon = ""
        return False

    # ---- by size ----

    def _remove_too_much(self) -> bool:
        excess = self._sizes["dedupe"] - self._most_requests
        if excess > 0 and self._oldest_request() is not None:
            self._remove_requests(size=excess)
            return True
        bound = self._settings.max_bytes
        used = self._used()
        over = used - bound
        if not bound or over <= 0:
            return False
        table = self._table_with_oldest(used)
        if table is None:
            return False
        if table == "jobs":
            self._remove_jobs(size=self._excess(table, used, over))
        elif table == "dedupe":
            self._remove_requests(size=self._excess(table, used, over))
        else:
            stream = Stream(table) if table != "job_events" else Stream.JOBS
            excess = self._excess(table, used, over)
            self._remove(stream, self._oldest[stream] + self._chunk(stream, excess), "size")
        self.behind = over > bound // 4
        return True

    def _used(self) -> int:
        pages, free, size = self._pages()
        return (pages - free) * size

    def _table_with_oldest(self, used: int) -> str | None:
        """Of the tables that take more than their share, the one whose oldest row is oldest."""
        share = self._settings.max_bytes // SHARE
        measured = max(1, self._sizes.total())
        found: list[tuple[str, str]] = []

        def consider(table: str, oldest: Callable[[], str | None]) -> None:
            if self._sizes[table] * used // measured > share:
                time = oldest()
                if time is not None:
                    found.append((time, table))

        for stream, table in TABLES.items():
            consider(table, lambda stream=stream: self._oldest_record(stream))  # type: ignore[misc]  # bound now
        consider("jobs", self._oldest_job)
        consider("dedupe", self._oldest_request)
        return min(found)[1] if found else None

    def _oldest_record(self, stream: Stream) -> str | None:
        if self._oldest[stream] >= self._following[stream]:
            return None
        (time,) = self._connection.execute(
            "select max(time) from marks where stream = ? and sequence <= ?",
            (stream, self._oldest[stream]),
        ).fetchone()
        return time or ""

    def _oldest_job(self) -> str | None:
        times = [time for time, _, _ in self._ended_jobs(1)]
        return min(times, default=None)

    def _oldest_request(self) -> str | None:
        time: str | None = self._connection.execute("select min(time) from dedupe").fetchone()[0]
        return time

    def _ended_jobs(self, most: int) -> list[tuple[str, str, int]]:
        """The first jobs to have ended with each status: when, their ids and bytes."""
        found: list[tuple[str, str, int]] = []
        for status in _ENDED:
            found += self._connection.execute(
                f"select updated_at, job_id, {MEASURES['jobs']} from jobs where status = ?"
                " order by sequence limit ?",
                (status, most),
            )
        return found

    def _excess(self, table: str, used: int, over: int) -> int:
        """The bytes, as they are measured, that a table has to give up: not of its own share."""
        measured = self._sizes[table]
        share = self._settings.max_bytes // SHARE
        total = max(1, self._sizes.total())
        return min(over * total // used, measured - share * total // used) + 1

    def _chunk(self, stream: Stream, excess: int) -> int:
        """How many records of a stream are about so many bytes."""
        records = self._following[stream] - self._oldest[stream]
        return max(1, min(_CHUNK, excess * records // max(1, self._sizes[TABLES[stream]])))

    # ---- the removal itself ----

    def _remove(self, stream: Stream, cut: int, why: str) -> None:
        cut = min(cut, self._following[stream])
        table = TABLES[stream]
        execute = self._connection.execute

        def remove() -> None:
            execute(
                "insert or replace into meta values(?, ?)",
                (f"next.{stream}", self._following[stream]),
            )
            self._sizes.add(table, -self._sizes.of(table, "sequence < ?", (cut,)))
            gone = execute(f"delete from {table} where sequence < ?", (cut,)).rowcount
            self.removed[(stream.value, why)] += gone
            if stream is Stream.LOGS:
                for severity in range(4):
                    execute(
                        "delete from log_levels where severity = ? and sequence < ?",
                        (severity, cut),
                    )
            execute(
                "delete from marks where stream = ? and sequence <"
                " (select max(sequence) from marks where stream = ? and sequence <= ?)",
                (stream, stream, cut),
            )
            if cut == self._following[stream]:
                self._sizes.clear(table)

        self._transact(remove)
        self._oldest[stream] = cut

    def _remove_some(self, stream: Stream, where: str, parameters: tuple[object, ...]) -> None:
        """What a rule names."""
        table = TABLES[stream]
        execute = self._connection.execute

        def remove() -> None:
            execute(
                "insert or replace into meta values(?, ?)",
                (f"next.{stream}", self._following[stream]),
            )
            self._sizes.add(table, -self._sizes.of(table, where, parameters))
            if stream is Stream.LOGS:
                execute(
                    "delete from log_levels where (severity, sequence) in"
                    f" (select severity, sequence from logs where {where})",
                    parameters,
                )
            gone = execute(f"delete from {table} where {where}", parameters).rowcount
            self.removed[(stream.value, "rule")] += gone

        self._transact(remove)
        (oldest,) = execute(f"select min(sequence) from {table}").fetchone()
        self._oldest[stream] = self._following[stream] if oldest is None else oldest

    def _remove_jobs(self, horizon: str = "", size: int = 0) -> bool:
        """Some of the jobs that ended first: before a horizon, or of about so many bytes."""
        ids: list[str] = []
        for time, job_id, job_size in sorted(self._ended_jobs(_JOBS_CHUNK))[:_JOBS_CHUNK]:
            if time >= horizon if horizon else size <= 0:
                break
            size -= job_size
            ids.append(job_id)
        if ids:
            self._transact(lambda: self._delete_jobs(ids))
        return bool(ids)

    def _delete_jobs(self, ids: list[str]) -> None:
        self._sizes.add("jobs", -self._sizes.of_jobs(ids))
        some = ", ".join("?" * len(ids))
        self._connection.execute(f"delete from jobs where job_id in ({some})", ids)

    def _remove_requests(self, horizon: str = "", size: int = 0) -> None:
        """Some of the requests remembered for longest: before a horizon, or at most of about so
        many bytes."""
        before, parameters = ("where time < ?", (horizon,)) if horizon else ("", ())
        most = _CHUNK if horizon else min(_CHUNK, size // _REQUEST_COST + 1)
        some = (
            "(stream, producer, request) in (select stream, producer, request from dedupe"
            f" {before} order by time limit {most})"
        )

        def remove() -> None:
            self._sizes.add("dedupe", -self._sizes.of("dedupe", some, parameters))
            self._delete_requests(some, parameters)

        self._transact(remove)

    def _delete_requests(self, where: str, parameters: tuple[object, ...]) -> None:
        self._connection.execute(f"delete from dedupe where {where}", parameters)

    def _transact(self, change: Callable[[], None]) -> None:
        execute = self._connection.execute
        execute("begin immediate")
        try:
            change()
            self._sizes.save()
            execute("commit")
        except BaseException:
            self._sizes.forget()
            if self._connection.in_transaction:
                execute("rollback")
            raise
        self._sizes.keep()

    # ---- pages ----

    def _relieve_wal(self) -> None:
        if self._wal_bytes() > self._next_wal:
            self._empty_wal()

    def _empty_wal(self) -> None:
        """Checkpoint and cut the WAL, waiting a moment for the readers that are in the way. If
        one stays, the next try comes when the WAL has grown by as much again, or with a look."""
        self._connection.execute("pragma busy_timeout = 20")
        self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        self._connection.execute("pragma busy_timeout = 5000")
        left = self._wal_bytes()
        self.pinned = left > self._most_wal
        self._next_wal = left + self._most_wal

    def _pages(self) -> tuple[int, int, int]:
        def pragma(name: str) -> int:
            value: int = self._connection.execute(f"pragma {name}").fetchone()[0]
            return value

        return pragma("page_count"), pragma("freelist_count"), pragma("page_size")

    def _wal_bytes(self) -> int:
        try:
            return os.path.getsize(f"{self.path}-wal")
        except OSError:
            return 0
