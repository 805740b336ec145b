"""The states of jobs, read from the store: one, or the last changed ones that somebody asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamkit.generated.streamservice import JobProgress
from streamkit.journal.base import JobPage, Stream
from streamkit.journal.records.items import text_of
from streamkit.journal.records.rows import JOB_COLUMNS, job_from_row
from streamkit.journal.rules.jobs import Job, page_of
from streamkit.patterns import Globs

__all__ = ["Asked", "job", "jobs"]

_AT_ONCE = 64
_FEW_BYTES = 64 * 1024
_SELECT = f"select {', '.join(JOB_COLUMNS)} from jobs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which jobs: the words are those of `Journal.jobs`."""

    statuses: tuple[str, ...] = ()
    since: datetime | None = None
    ids: tuple[str, ...] = ()
    before: int | None = None


def job(connection: sqlite3.Connection, job_id: str) -> JobProgress | None:
    row = connection.execute(f"{_SELECT} where job_id = ?", (job_id,)).fetchone()
    return None if row is None else job_from_row(row).progress()


def jobs(connection: sqlite3.Connection, asked: Asked, limit: int, max_bytes: int) -> JobPage:
    """A page of the last changed jobs, newest first."""
    return page_of(_found(connection, asked), limit, max_bytes)


def _found(connection: sqlite3.Connection, asked: Asked) -> Iterator[Job]:
    where, parameters = _conditions(connection, asked)
    # For each status there is an index by sequence; SQLite merges what comes from them.
    each = [f"{_SELECT} where status = ?{where}"] * len(asked.statuses)
    sql = " union all ".join(each) or f"{_SELECT} where true{where}"
    values = [v for status in asked.statuses for v in (status, *parameters)] or parameters
    ids: Globs[bool] = Globs()
    for pattern in asked.ids:
        ids.add(pattern, True)
    cursor = connection.execute(f"{sql} order by sequence desc", values)
    at_once = 1
    try:
        while some := cursor.fetchmany(at_once):
            size = 0
            for row in some:
                found = job_from_row(row)
                size += found.size
                if not asked.ids or ids.matches(found.job_id):
                    yield found
            at_once = min(_AT_ONCE, 2 * at_once) if size < _FEW_BYTES else 1
    finally:
        cursor.close()


def _conditions(connection: sqlite3.Connection, asked: Asked) -> tuple[str, list[Any]]:
    where = ""
    parameters: list[Any] = []
    if asked.before is not None:
        where += " and sequence < ?"
        parameters.append(asked.before)
    if asked.since is not None:
        time = text_of(asked.since)
        # What was recorded before the second in which the time lies need not be looked at.
        (first,) = connection.execute(
            "select max(sequence) from marks where stream = ? and time < ?", (Stream.JOBS, time)
        ).fetchone()
        where += " and sequence >= ? and updated_at >= ?"
        parameters += [first or 0, time]
    return where, parameters
