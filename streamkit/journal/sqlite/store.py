"""The writing side of an SQLite store: requests in, one transaction out. One thread uses it.

Requests are applied to what is in memory (next sequences, live jobs, producers' last requests),
their rows collected, and all rows stored in one transaction. Only then does anybody hear of them.
If the transaction fails, memory is read back from the file and each request is tried alone, so
that one that cannot be stored does not take others with it.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError, LimitError, NotFoundError, StreamkitError
from streamkit.journal.base import TERMINAL, Appended, Item, Record, Stream
from streamkit.journal.records import rows
from streamkit.journal.records.items import Row, log_rows, text_of, update_rows
from streamkit.journal.records.rows import event_item
from streamkit.journal.rules.jobs import Job, cancelled, grown_old
from streamkit.journal.rules.reports import Settled, settle
from streamkit.journal.rules.silence import Silences
from streamkit.journal.sqlite import remembered
from streamkit.journal.sqlite.insert import Insert
from streamkit.journal.sqlite.known import KnownJobs
from streamkit.journal.sqlite.levels import Levels
from streamkit.journal.sqlite.requests import (
    Append,
    AppendRun,
    Ask,
    Cancel,
    Committed,
    Report,
    Request,
    Sweep,
)
from streamkit.journal.sqlite.retention import Retention
from streamkit.journal.sqlite.schema import TABLES, end_life, open_store, store_error
from streamkit.journal.sqlite.sizes import Sizes

__all__ = ["Store"]

_KNOWN_BYTES = 16 * 1024 * 1024
"""Of jobs that were reported on or changed last and are kept in memory."""
_OVERDUE_AT_ONCE = 1000

_INSERT = {
    "updates": Insert("updates", rows.COLUMNS[Stream.UPDATES]),
    "logs": Insert("logs", rows.COLUMNS[Stream.LOGS]),
    "job_events": Insert("job_events", rows.EVENT_COLUMNS),
    "jobs": Insert("jobs", rows.JOB_COLUMNS, "insert or replace"),
    "dedupe": Insert("dedupe", remembered.COLUMNS, "insert or replace"),
    "marks": Insert("marks", ("stream", "sequence", "time")),
}

_TO_ROWS: dict[Stream, Callable[[Sequence[Any], int, datetime], list[Row]]] = {
    Stream.UPDATES: update_rows,
    Stream.LOGS: log_rows,
}
_STREAM_TABLES = frozenset(TABLES.values())
_ENDED = ", ".join(f"'{status}'" for status in sorted(TERMINAL))

_logger = logging.getLogger("streamkit.journal")


@dataclass(slots=True)
class _Group:
    """What the transaction to come will store."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    items: dict[Stream, list[Item[Record]]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    events: dict[int, Job] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    live: int = 0
    """By how many there are more jobs that have not ended."""

    def add(self, table: str, new: Sequence[Row]) -> None:
        known = self.tables.get(table)
        if known is None:
            self.tables[table] = list(new)
        else:
            known.extend(new)


class Store:
    """One open store file. Opens it in the constructor; raises StoreError."""

    def __init__(self, path: str, options: JournalOptions) -> None:
        self._connection = open_store(path, options)
        self._options = options
        self._remembered = remembered.Remembered(self._connection, options.windows_bytes)
        self._group = _Group()
        self.oldest: dict[Stream, int] = {}
        self.following: dict[Stream, int] = {}
        self._marked: dict[Stream, str] = {}
        self._jobs = KnownJobs(_KNOWN_BYTES)
        self._silences = Silences()
        self._live = 0
        try:
            self._read_state()
            self._sizes = Sizes(self._connection, self.oldest, self.following)
            self._levels = Levels(self._connection)
        except sqlite3.Error as error:
            self._connection.close()
            raise store_error(error) from None
        self._committed = (dict(self.following), dict(self._marked))
        self._retention = Retention(
            self._connection, path, options, self.oldest, self.following, self._sizes
        )
        self.retaining = False
        """Whether retention has steps left to do."""
        self._look_after = options.retention.max_bytes // 16
        self._unlooked = 0

    @property
    def epoch(self) -> str:
        row = self._connection.execute("select value from meta where key = 'epoch'").fetchone()
        return str(row[0])

    @property
    def removed(self) -> Mapping[tuple[str, str], int]:
        """How many records retention has removed, by stream and by why."""
        return self._retention.removed

    def repeats(self) -> int:
        """How many requests were repeated ones. May be asked in any thread."""
        return self._remembered.repeats

    @property
    def pinned(self) -> bool:
        """Whether a reader keeps the WAL from being emptied though it is too large."""
        return self._retention.pinned

    def commit(self, requests: Sequence[Request]) -> list[Committed]:
        """Store what the requests ask for, if possible in one transaction."""
        for request in requests:
            try:
                request.result = self._apply(request)
            except sqlite3.Error as error:
                request.error = store_error(error)
            except Exception as error:  # the caller's to see; the others' requests go on
                request.error = error
        group = self._group
        try:
            self._write(group)
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            self.undo()
            self._make_room(error)
            if len(requests) > 1:
                for request in requests:
                    request.result = request.error = None
                return [done for request in requests for done in self.commit([request])]
            if isinstance(requests[0], AppendRun):
                return self._apart(requests[0])
            requests[0].error = _translated(error)
            return [Committed(requests, {})]
        self._settle(group)
        return [Committed(requests, group.items)]

    def _apart(self, run: AppendRun) -> list[Committed]:
        """Each in a transaction of its own."""
        requests = run.apart()
        committed = [done for request in requests for done in self.commit([request])]
        run.result = [
            request.error or (request.result.first, request.result.count) for request in requests
        ]
        return committed

    def undo(self) -> None:
        """Take back what was not committed, on disk and in memory."""
        if self._connection.in_transaction:
            self._connection.execute("rollback")
        self._group = _Group()
        self._remembered.undo()
        self._sizes.forget()
        following, marked = self._committed
        self.following.update(following)
        self._marked.update(marked)

    def _apply(self, request: Request) -> Any:
        """Add to the transaction to come."""
        match request:
            case Append():
                return self._append(request)
            case AppendRun():
                return self._append_run(request)
            case Report():
                return self._report(request)
            case Cancel():
                return self._cancel(request)
            case Sweep():
                return self._sweep(request)
            case Ask():
                return self.retaining
        return None

    def _settle(self, group: _Group) -> None:
        """What was stored is the state from now on."""
        self._group = _Group()
        self._committed = (dict(self.following), dict(self._marked))
        self._sizes.keep()
        self._remembered.settle()
        self._live += group.live
        for job_id, job in group.jobs.items():
            self._jobs.put(job)
            if job_id in group.heard:
                self._silences.heard(job, group.heard[job_id])
            elif job.ended:
                self._silences.forget(job_id)
        if self._look_after and self._unlooked > self._look_after:
            self._unlooked = 0
            self.retaining = True  # a fast writer does not wait for the next sweep

    def _append(self, request: Append) -> Appended:
        stream, producer = request.stream, request.producer
        known = self._remembered.find(stream, producer)
        if known is not None:
            return Appended(*known)
        first = self.following[stream]
        new = _to_rows(request, request.messages, first)
        self._add_records(stream, new, request.now)
        if producer is not None:
            self._remembered.keep(stream, producer, (first, len(new)), text_of(request.now))
        return Appended(first, len(new))

    def _append_run(self, run: AppendRun) -> list[tuple[int, int] | Exception]:
        """In one go, which is what many small ones are together for; one by one when there is
        something to be said about one of them."""
        stream, batches = run.stream, run.batches
        first = self.following[stream]
        if self._remembered.all_new(stream, batches):
            messages = list(chain.from_iterable([messages for messages, _ in batches]))
            try:
                new = _to_rows(run, messages, first)
            except Exception:  # each for itself says whose it is
                return self._append_apart(run)
            self._add_records(stream, new, run.now)
            return [*self._remembered.keep_all(stream, batches, first, text_of(run.now))]
        return self._append_apart(run)

    def _append_apart(self, run: AppendRun) -> list[tuple[int, int] | Exception]:
        found: list[tuple[int, int] | Exception] = []
        for request in run.apart():
            try:
                stored = self._append(request)
                found.append((stored.first, stored.count))
            except sqlite3.Error as error:
                found.append(store_error(error))
            except Exception as error:  # the caller's to see; the others go on
                found.append(error)
        return found

    def _report(self, request: Report) -> list[Any]:
        known: dict[str, Job | None] = {}

        def stored(job_id: str) -> Job | None:
            known[job_id] = self._job(job_id)
            return known[job_id]

        settled = settle(
            request.reports,
            create=request.create,
            now=request.now,
            next_sequence=self.following[Stream.JOBS],
            stored=stored,
            answered=partial(self._remembered.find, Stream.JOBS),
        )
        self._count_live(known, settled)
        self._group.jobs.update(settled.states)
        self._group.heard.update(dict.fromkeys(settled.states, request.seen))
        self._add_events(settled.events, request.now)
        self._note_heard(settled)
        for producer, answer in settled.answers.items():
            self._remembered.keep(Stream.JOBS, producer, answer, text_of(request.now))
        return [
            after.progress() if isinstance(after, Job) else self._event(*after)
            for after in settled.after
        ]

    def _note_heard(self, settled: Settled) -> None:
        """Workers were heard. Here only memory knows, for reports that changed nothing."""

    def _cancel(self, request: Cancel) -> Any:
        stored = self._job(request.job_id)
        if stored is None:
            raise NotFoundError(f"no job {request.job_id!r}")
        return self._change(stored, cancelled(stored, request.reason, request.now)).progress()

    def _count_live(self, before: dict[str, Job | None], settled: Settled) -> None:
        """Jobs that have not ended are never removed, so their number and bytes are bounded."""
        more = sum(not job.ended for job in settled.states.values())
        more -= sum(job is not None and not job.ended for job in before.values())
        bound = self._options.retention.max_bytes // 2
        if more > 0 and self._live + self._group.live + more > self._options.live_jobs:
            raise LimitError(
                f"there are {self._live} jobs that have not ended, as many as may be",
                hint="end or cancel some of them first",
            )
        if more > 0 and bound and self._jobs_size() > bound:
            raise LimitError(
                "the jobs that have not ended fill half of the store",
                hint="end or cancel some of them first, or give the store more room",
            )
        self._group.live += more

    def _jobs_size(self) -> int:
        """The bytes of all jobs, as the bound on those that have not ended sees them."""
        return self._sizes["jobs"]

    def _sweep(self, request: Sweep) -> bool:
        overdue = self._silences.overdue(request.seen, _OVERDUE_AT_ONCE)
        for job_id, silence in overdue:
            try:
                job = self._job(job_id)
                if job is None:
                    self._silences.forget(job_id)
                else:
                    self._change(job, grown_old(job, request.now, silence))
            except ValueError:  # a row that somebody else has changed: it must not stop the others
                _logger.exception("job %r cannot be read and is not watched any more", job_id)
                self._silences.forget(job_id)
        if request.retention != self._options.retention:
            self._options = replace(self._options, retention=request.retention)
            self._look_after = request.retention.max_bytes // 16
            self._retention.keep(self._options)
        try:
            self._retention.look(request.aged)
        except sqlite3.Error as error:
            raise store_error(error) from None
        self.retaining = True
        return len(overdue) == _OVERDUE_AT_ONCE

    def retain(self) -> None:
        """One step of retention, or as many as it takes until writes may go on. A failure ends
        this round; the next sweep begins another."""
        try:
            self.retaining = self._retention.step() or self._levels.step(self.oldest[Stream.LOGS])
            while self._retention.behind:
                self.retaining = self._retention.step()
        except sqlite3.Error as error:
            self.retaining = False
            self._make_room(error)

    def close(self) -> None:
        end_life(self._connection)

    def _write(self, group: _Group) -> None:
        if not group.tables and not self._remembered.rows:
            return
        before = self._sizes.total()
        self._connection.execute("begin immediate")
        self._put(group)
        self._connection.execute("commit")
        self._unlooked += max(0, self._sizes.total() - before)

    def _put(self, group: _Group) -> None:
        """Store what a group holds, within a transaction."""
        execute, sizes, memory = self._connection.execute, self._sizes, self._remembered
        if memory.rows:
            group.tables["dedupe"] = memory.rows
        for table, new in group.tables.items():
            changed = [row[0] for row in new] if table == "jobs" else []
            if changed:
                sizes.add(table, -sizes.of_jobs(changed))
            _INSERT[table](execute, new)
            if changed:
                sizes.add(table, sizes.of_jobs(changed))
            elif table in _STREAM_TABLES:
                sizes.add(table, sizes.of_rows(table, new))
            elif table == "dedupe":
                sizes.add(table, sum(64 + 2 * len(row[1]) + len(row[4]) for row in new))
            if table == "logs":
                execute(
                    "insert into log_levels select severity, sequence from logs"
                    " where sequence >= ?",
                    (new[0][0],),
                )
        for forgotten in memory.forgotten:
            where = "stream = ? and producer = ? and request > 0 and ifnull(last, request) <= ?"
            sizes.add("dedupe", -sizes.of("dedupe", where, forgotten))
            execute(f"delete from dedupe where {where}", forgotten)
        sizes.save()

    def _make_room(self, error: Exception) -> None:
        """On a full disk, what the WAL holds goes to its place, so that its space is free again
        for the removal of what is too old."""
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            with suppress(sqlite3.Error):  # then it has to wait until somebody frees some space
                self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()

    def _read_state(self) -> None:
        execute = self._connection.execute
        for stream, table in TABLES.items():
            oldest, newest = execute(
                f"select (select min(sequence) from {table}), (select max(sequence) from {table})"
            ).fetchone()
            kept = execute("select value from meta where key = ?", (f"next.{stream}",)).fetchone()
            self.following[stream] = max((newest or 0) + 1, kept[0] if kept is not None else 1)
            self.oldest[stream] = oldest or self.following[stream]
            (time,) = execute("select max(time) from marks where stream = ?", (stream,)).fetchone()
            self._marked[stream] = time or ""
        (self._live,) = execute(
            f"select count(*) from jobs where status not in ({_ENDED})"
        ).fetchone()
        for job_id, heartbeat in execute(
            "select job_id, heartbeat from jobs where status = 'running' and heartbeat > 0"
        ):
            self._silences.expect(job_id, heartbeat, 0.0)

    def _add_records(self, stream: Stream, new: Sequence[Row], now: datetime) -> None:
        if new:
            self._add(stream, list(map(rows.item_from_row[stream], new)), new, text_of(now))

    def _add(
        self, stream: Stream, items: list[Item[Record]], new: Sequence[Row], time: str
    ) -> None:
        if time[:19] > self._marked[stream][:19]:
            self._marked[stream] = time
            self._group.add("marks", [(stream, items[0].sequence, time)])
        self._group.add(TABLES[stream], new)
        self._group.items.setdefault(stream, []).extend(items)
        self.following[stream] = items[-1].sequence + 1

    def _add_events(self, events: list[Job], now: datetime) -> None:
        if not events:
            return
        items = list(map(event_item, events))
        self._add(Stream.JOBS, items, [rows.event_row(job) for job in events], text_of(now))
        self._group.add("jobs", [rows.job_row(job) for job in events])
        self._group.events.update((job.sequence, job) for job in events)

    def _change(self, stored: Job, job: Job) -> Job:
        if job is not stored:
            self._group.live -= job.ended
            job = replace(job, sequence=self.following[Stream.JOBS])
            self._group.jobs[job.job_id] = job
            self._add_events([job], job.updated_at)
        return job

    def _job(self, job_id: str) -> Job | None:
        job = self._group.jobs.get(job_id) or self._jobs.get(job_id)
        if job is None:
            row = self._connection.execute(
                f"select {', '.join(rows.JOB_COLUMNS)} from jobs where job_id = ?", (job_id,)
            ).fetchone()
            job = None if row is None else rows.job_from_row(row)
        return job

    def _event(self, job_id: str, sequence: int) -> Any:
        """What a report was answered the first time, as far as it is still there."""
        if sequence in self._group.events:
            return self._group.events[sequence].progress()
        row = self._connection.execute(
            f"select {', '.join(rows.EVENT_COLUMNS)} from job_events where sequence = ?",
            (sequence,),
        ).fetchone()
        if row is not None:
            return rows.item_from_row[Stream.JOBS](row).message
        job = self._job(job_id)
        if job is None:
            raise NotFoundError(f"job {job_id!r} is no longer kept")
        return job.progress()


def _to_rows(request: Append | AppendRun, messages: Sequence[Any], first: int) -> list[Row]:
    if request.made:
        return [(number, *row[1:]) for number, row in enumerate(messages, first)]
    return _TO_ROWS[request.stream](messages, first, request.now)


def _translated(error: Exception) -> StreamkitError:
    if isinstance(error, sqlite3.Error):
        return store_error(error)
    return InvalidArgumentError(f"text that is not valid Unicode cannot be stored: {error}")
