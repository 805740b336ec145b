"""The writing side of an SQLite store: requests in, one transaction out. One thread uses it.

Requests are applied to what is in memory (next sequences, live jobs, producers' last requests),
their rows collected, and all rows stored in one transaction. Only then does anybody hear of them.
If the transaction fails, memory is read back from the file and each request is tried alone, so
that one that cannot be stored does not take others with it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError, NotFoundError, StreamkitError
from streamkit.generated.streamservice import JobReport
from streamkit.journal.base import TERMINAL, Appended, Entry, Item, ProducerId, Stream
from streamkit.journal.records import rows
from streamkit.journal.records.items import Row, dump, log_rows, text_of, update_rows
from streamkit.journal.rules.dedupe import Answer, Window, Windows, check_producer
from streamkit.journal.rules.jobs import Job, cancelled, grown_old
from streamkit.journal.rules.reports import settle
from streamkit.journal.sqlite.retention import Retention
from streamkit.journal.sqlite.schema import TABLES, end_life, open_store, store_error

__all__ = ["Append", "Ask", "Cancel", "Committed", "Report", "Request", "Store", "Sweep"]

_PRODUCERS = 1024

_INSERT = {
    "updates": rows.Insert("updates", rows.COLUMNS[Stream.UPDATES]),
    "logs": rows.Insert("logs", rows.COLUMNS[Stream.LOGS]),
    "job_events": rows.Insert("job_events", rows.EVENT_COLUMNS),
    "jobs": rows.Insert("jobs", rows.JOB_COLUMNS, "insert or replace"),
    "dedupe": rows.Insert(
        "dedupe", ("stream", "producer", "request", "answer", "time"), "insert or replace"
    ),
    "marks": rows.Insert("marks", ("stream", "sequence", "time")),
}


class Request:
    """Something to store, by itself nothing. After the commit `result` or `error` is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.result: Any = None
        self.error: Exception | None = None
        self.weight = 1
        """About how many records this is."""

    def apply(self, store: Store) -> None:
        """Add to the store's next transaction, in the store's thread."""


class Append(Request):
    """Updates or log lines, all or none."""

    def __init__(
        self,
        now: datetime,
        stream: Stream,
        messages: Sequence[Any],
        producer: ProducerId | None,
    ) -> None:
        super().__init__(now)
        self.stream = stream
        self.messages = messages
        self.producer = producer
        self.weight = len(messages)

    def apply(self, store: Store) -> None:
        self.result = store.append(self)


class Report(Request):
    """Job reports, all or none."""

    def __init__(self, now: datetime, reports: Sequence[JobReport], create: bool) -> None:
        super().__init__(now)
        self.reports = reports
        self.create = create
        self.weight = len(reports)

    def apply(self, store: Store) -> None:
        self.result = store.report(self)


class Cancel(Request):
    """Somebody wants a job to end."""

    def __init__(self, now: datetime, job_id: str, reason: str) -> None:
        super().__init__(now)
        self.job_id = job_id
        self.reason = reason

    def apply(self, store: Store) -> None:
        self.result = store.cancel(self)


class Sweep(Request):
    """Time passed."""

    def apply(self, store: Store) -> None:
        store.sweep(self)


class Ask(Request):
    """Whether retention has something left to do."""

    def apply(self, store: Store) -> None:
        self.result = store.retaining


@dataclass(slots=True)
class Committed:
    """What a transaction stored, for the loop's thread."""

    requests: list[Request]
    items: dict[Stream, list[Entry]]


@dataclass(slots=True)
class _Group:
    """What the transaction to come will store."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    forgotten: list[tuple[str, str, int]] = field(default_factory=list)
    items: dict[Stream, list[Entry]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    events: dict[int, Job] = field(default_factory=dict)

    def add(self, table: str, new: Sequence[Row]) -> None:
        known = self.tables.get(table)
        if known is None:
            self.tables[table] = list(new)
        else:
            known.extend(new)


class Store:
    """One open store file. Opens it in the constructor; raises StoreError."""

    def __init__(self, path: str, options: JournalOptions, now: datetime) -> None:
        self._connection = open_store(path, options)
        self._present_since = now
        self._windows = Windows(_PRODUCERS)
        self._group = _Group()
        self.oldest: dict[Stream, int] = {}
        self.following: dict[Stream, int] = {}
        self._marked: dict[Stream, str] = {}
        self._live: dict[str, Job] = {}
        try:
            self._read_state()
        except sqlite3.Error as error:
            self._connection.close()
            raise store_error(error) from None
        self._retention = Retention(
            self._connection, path, options.retention, self.oldest, self.following
        )
        self.retaining = False
        """Whether retention has steps left to do."""
        self._look_after = options.retention.max_bytes // 16
        self._unlooked = 0

    @property
    def epoch(self) -> str:
        row = self._connection.execute("select value from meta where key = 'epoch'").fetchone()
        return str(row[0])

    def commit(self, requests: list[Request]) -> list[Committed]:
        """Store what the requests ask for, if possible in one transaction."""
        for request in requests:
            try:
                request.apply(self)
            except sqlite3.Error as error:
                request.error = store_error(error)
            except Exception as error:  # the caller's to see; the others' requests go on
                request.error = error
        group = self._group
        try:
            self._write(group)
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            self._undo()
            self._make_room(error)
            if len(requests) > 1:
                for request in requests:
                    request.result = request.error = None
                return [done for request in requests for done in self.commit([request])]
            requests[0].error = _translated(error)
            return [Committed(requests, {})]
        if self._look_after and self._unlooked > self._look_after:
            self._unlooked = 0
            self.retaining = True  # a fast writer does not wait for the next sweep
        self._group = _Group()
        for job in group.jobs.values():
            if job.ended:
                self._live.pop(job.job_id, None)
            else:
                self._live[job.job_id] = job
        return [Committed(requests, group.items)]

    def append(self, request: Append) -> Appended:
        stream = request.stream
        known = self._answered(stream, request.producer)
        if known is not None:
            return Appended(*known)
        first = self.following[stream]
        now = request.now
        if stream is Stream.UPDATES:
            new = update_rows(request.messages, first, now)
        else:
            new = log_rows(request.messages, first, now)
        items = list(map(rows.item_from_row[stream], new))
        if items:
            self._add(stream, items, new, now)
        self._remember(stream, request.producer, (first, len(items)), now)
        return Appended(first, len(items))

    def report(self, request: Report) -> list[Any]:
        settled = settle(
            request.reports,
            create=request.create,
            now=request.now,
            next_sequence=self.following[Stream.JOBS],
            stored=self._job,
            answered=partial(self._answered, Stream.JOBS),
        )
        self._group.jobs.update(settled.states)
        self._add_events(settled.events, request.now)
        for producer, answer in settled.answers.items():
            self._remember(Stream.JOBS, producer, answer, request.now)
        return [
            after.progress() if isinstance(after, Job) else self._event(*after)
            for after in settled.after
        ]

    def cancel(self, request: Cancel) -> Any:
        stored = self._job(request.job_id)
        if stored is None:
            raise NotFoundError(f"no job {request.job_id!r}")
        return self._change(stored, cancelled(stored, request.reason, request.now)).progress()

    def sweep(self, request: Sweep) -> None:
        for job in list(self._live.values()):
            job = self._group.jobs.get(job.job_id, job)
            self._change(job, grown_old(job, request.now, self._present_since))
        try:
            self._retention.look(request.now)
        except sqlite3.Error as error:
            raise store_error(error) from None
        self.retaining = True

    def retain(self) -> None:
        """One step of retention, or as many as it takes until writes may go on. A failure ends
        this round; the next sweep begins another."""
        try:
            self.retaining = self._retention.step()
            while self._retention.behind:
                self.retaining = self._retention.step()
        except sqlite3.Error as error:
            self.retaining = False
            self._make_room(error)

    def close(self) -> None:
        end_life(self._connection)

    def _write(self, group: _Group) -> None:
        self._unlooked += sum(item.size for items in group.items.values() for item in items) // 2
        tables = group.tables
        if not tables:
            return
        execute = self._connection.execute
        execute("begin immediate")
        for table, new in tables.items():
            _INSERT[table](execute, new)
        for forgotten in group.forgotten:
            execute(
                "delete from dedupe where stream = ? and producer = ? and request between 1 and ?",
                forgotten,
            )
        execute("commit")

    def _make_room(self, error: Exception) -> None:
        """On a full disk, what the WAL holds goes to its place, so that its space is free again
        for the removal of what is too old."""
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            with suppress(sqlite3.Error):  # then it has to wait until somebody frees some space
                self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("rollback")
        self._group = _Group()
        self._windows.clear()
        self._read_state()

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
        ended = ", ".join(f"'{status}'" for status in sorted(TERMINAL))
        found = execute(
            f"select {', '.join(rows.JOB_COLUMNS)} from jobs where status not in ({ended})"
        )
        self._live = {job.job_id: job for job in map(rows.job_from_row, found)}

    def _add(self, stream: Stream, items: list[Entry], new: Sequence[Row], now: datetime) -> None:
        time = text_of(now)
        if time[:19] > self._marked[stream][:19]:
            self._marked[stream] = time
            self._group.add("marks", [(stream, items[0].sequence, time)])
        self._group.add(TABLES[stream], new)
        self._group.items.setdefault(stream, []).extend(items)
        self.following[stream] = items[-1].sequence + 1

    def _add_events(self, events: list[Job], now: datetime) -> None:
        if not events:
            return
        items: list[Entry] = [Item(j.sequence, j.job_id, 0, j.progress(), 1024) for j in events]
        self._add(Stream.JOBS, items, [rows.event_row(job) for job in events], now)
        self._group.add("jobs", [rows.job_row(job) for job in events])
        self._group.events.update((job.sequence, job) for job in events)

    def _change(self, stored: Job, job: Job) -> Job:
        if job is not stored:
            job = replace(job, sequence=self.following[Stream.JOBS])
            self._group.jobs[job.job_id] = job
            self._add_events([job], job.updated_at)
        return job

    def _job(self, job_id: str) -> Job | None:
        job = self._group.jobs.get(job_id) or self._live.get(job_id)
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

    def _window(self, stream: Stream, producer: str) -> Window:
        window = self._windows.get(stream, producer)
        if window is None:
            found = self._connection.execute(
                "select request, answer from dedupe where stream = ? and producer = ?",
                (stream, producer),
            ).fetchall()
            answers: dict[int, Answer] = {n: tuple(json.loads(text)) for n, text in found}
            floor = answers.pop(0, (0,))[0]
            window = Window(answers, floor)
            self._windows.put(stream, producer, window)
        return window

    def _answered(self, stream: Stream, producer: ProducerId | None) -> Answer | None:
        if producer is None:
            return None
        check_producer(producer)
        return self._window(stream, producer.id).find(producer.sequence)

    def _remember(
        self, stream: Stream, producer: ProducerId | None, answer: Answer, now: datetime
    ) -> None:
        if producer is None:
            return
        time = text_of(now)
        window = self._window(stream, producer.id)
        row = (stream, producer.id, producer.sequence, dump(answer), time)
        self._group.add("dedupe", [row])
        if window.remember(producer.sequence, answer):
            # Request 0 stands for all that are forgotten.
            floor = (stream, producer.id, 0, dump([window.floor]), time)
            self._group.add("dedupe", [floor])
            self._group.forgotten.append((stream, producer.id, window.floor))


def _translated(error: Exception) -> StreamkitError:
    if isinstance(error, sqlite3.Error):
        return store_error(error)
    return InvalidArgumentError(f"text that is not valid Unicode cannot be stored: {error}")
