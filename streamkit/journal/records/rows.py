"""Jobs as rows, and rows as items and jobs."""

from __future__ import annotations

from dataclasses import fields

from streamkit.generated.streamservice import JobProgress
from streamkit.journal.base import Item, Record, Stream
from streamkit.journal.records.items import Row, cost_of, log_item, text_of, time_of, update_item
from streamkit.journal.rules.jobs import Job

__all__ = [
    "COLUMNS",
    "EVENT_COLUMNS",
    "JOB_COLUMNS",
    "event_item",
    "event_row",
    "item_from_row",
    "job_from_row",
    "job_row",
]

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
    "traceparent",
)
COLUMNS = {
    Stream.UPDATES: ("sequence", "topic", "time", "message", "metadata"),
    Stream.LOGS: ("sequence", "service", "level", "severity", "time", "message", "fields"),
    Stream.JOBS: EVENT_COLUMNS,
}
"""Of each stream's table, in the order of its rows here."""

_EVENT_COST = 1024
_JOB_TIMES = ("created_at", "updated_at", "reported_at")
_JOB_FLAGS = ("stalled", "cancel_requested")


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
        job.traceparent,
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


def event_item(job: Job) -> Item[Record]:
    """The item of a change."""
    return Item(job.sequence, job.job_id, 0, job.progress(), _EVENT_COST + 2 * job.size)


def _event_from_row(row: Row) -> Item[Record]:
    values = dict(zip(EVENT_COLUMNS, row, strict=True))
    values["updated_at"] = time_of(values.pop("time"))
    values["created_at"] = time_of(values["created_at"])
    for name in _JOB_FLAGS:
        values[name] = bool(values[name])
    progress = JobProgress(**values)
    texts = (
        progress.job_id,
        progress.current_step,
        progress.error,
        progress.service,
        progress.traceparent,
    )
    size = _EVENT_COST + sum(map(cost_of, texts))
    return Item(progress.sequence, progress.job_id, 0, progress, size)


item_from_row = {
    Stream.UPDATES: update_item,
    Stream.LOGS: log_item,
    Stream.JOBS: _event_from_row,
}
"""Builds a stream's item from a row with its COLUMNS."""
