"""Items and jobs as rows, and rows as items and jobs.

Rows travel as JSON in both directions: `INSERT ... SELECT ... FROM json_each(?)` stores a batch
and `SELECT json_group_array(...)` reads one in a single step of SQLite. The sqlite3 module lets
go of the interpreter lock at every step, and to get it back next to a busy loop can take
milliseconds, so what counts is not the cost of a row but the number of steps.
"""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from streamkit.generated.streamservice import JobProgress, LogEntry, Update
from streamkit.journal.base import Entry, Item, Stream
from streamkit.journal.jobs import Job
from streamkit.journal.records import item_size, make_log, make_update

__all__ = [
    "COLUMNS",
    "EVENT_COLUMNS",
    "JOB_COLUMNS",
    "dump",
    "event_row",
    "insert_statement",
    "item_from_row",
    "job_from_row",
    "job_row",
    "log_row",
    "text_of",
    "time_of",
    "update_row",
]

Row = list[Any] | tuple[Any, ...]

JOB_COLUMNS = tuple(field.name for field in fields(Job))
"""Of the table jobs: every field of a job, by its own name."""
EVENT_COLUMNS = (
    "sequence",
    "job_id",
    "time",
    "status",
    "percentage",
    "current_step",
    "completed",
    "total",
    "service",
    "error",
    "exit_code",
    "stalled",
    "cancel_requested",
    "created_at",
)
COLUMNS = {
    Stream.UPDATES: ("sequence", "topic", "time", "message", "metadata"),
    Stream.LOGS: ("sequence", "service", "level", "severity", "time", "message", "fields"),
    Stream.JOBS: EVENT_COLUMNS,
}
"""Of each stream's table, in the order of its rows here."""

_JOB_TIMES = ("created_at", "updated_at", "reported_at")
_JOB_FLAGS = ("stalled", "cancel_requested")

dump = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


def insert_statement(table: str, columns: tuple[str, ...], verb: str = "insert") -> str:
    """A statement whose one parameter is a JSON array of rows."""
    values = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(columns)))
    return f"{verb} into {table}({', '.join(columns)}) select {values} from json_each(?)"


def text_of(time: datetime) -> str:
    """A UTC time as text: 2026-11-22 15:04:05.678901."""
    # Four times as fast as isoformat(), as most times of a batch are of the same second.
    second = _second(time.year, time.month, time.day, time.hour, time.minute, time.second)
    return f"{second}.{time.microsecond:06}"


@lru_cache(maxsize=256)
def _second(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def update_row(item: Entry, time: str) -> Row:
    own: dict[str, Any] = object.__getattribute__(item.message, "__dict__")
    metadata = own["metadata"]
    return item.sequence, item.key, time, own["message"], dump(metadata) if metadata else None


def log_row(item: Entry, time: str) -> Row:
    own: dict[str, Any] = object.__getattribute__(item.message, "__dict__")
    extra = dump(own["fields"]) if own["fields"] else None
    return item.sequence, item.key, own["level"], item.rank, time, own["message"], extra


def event_row(job: Job) -> Row:
    return (
        job.sequence,
        job.job_id,
        text_of(job.updated_at),
        job.status,
        job.percentage,
        job.current_step,
        job.completed,
        job.total,
        job.service,
        job.error,
        job.exit_code,
        int(job.stalled),
        int(job.cancel_requested),
        text_of(job.created_at),
    )


def job_row(job: Job) -> Row:
    row = []
    for name in JOB_COLUMNS:
        value = getattr(job, name)
        if name in _JOB_TIMES:
            value = text_of(value)
        row.append(int(value) if name in _JOB_FLAGS else value)
    return row


def job_from_row(row: Row) -> Job:
    values = dict(zip(JOB_COLUMNS, row, strict=True))
    for name in _JOB_TIMES:
        values[name] = time_of(values[name])
    for name in _JOB_FLAGS:
        values[name] = bool(values[name])
    return Job(**values)


def _update_from_row(row: Row) -> Entry:
    sequence, topic, time, message, metadata = row
    extra = {} if metadata is None else json.loads(metadata)
    made: Update = make_update(sequence, topic, time_of(time), message, extra)
    return Item(sequence, topic, 0, made, item_size(topic, message, extra))


def _log_from_row(row: Row) -> Entry:
    sequence, service, level, severity, time, message, more = row
    extra = {} if more is None else json.loads(more)
    made: LogEntry = make_log(sequence, service, level, time_of(time), message, extra)
    return Item(sequence, service, severity, made, item_size(service, message, extra))


def _event_from_row(row: Row) -> Entry:
    values = dict(zip(EVENT_COLUMNS, row, strict=True))
    values["updated_at"] = time_of(values.pop("time"))
    values["created_at"] = time_of(values["created_at"])
    for name in _JOB_FLAGS:
        values[name] = bool(values[name])
    progress = JobProgress(**values)
    return Item(progress.sequence, progress.job_id, 0, progress, 1024)


item_from_row = {
    Stream.UPDATES: _update_from_row,
    Stream.LOGS: _log_from_row,
    Stream.JOBS: _event_from_row,
}
"""Builds a stream's item from a row with its COLUMNS."""
