"""The rules of a job's life, pure: state and report in, next state out.

    pending --> running --> completed | failed | cancelled | lost

* A status never goes backwards, and a terminal one is never overwritten.
* Percentage and completed never fall. With a total, the percentage follows from completed; a job
  that completed is at 100.
* A running job that named a heartbeat and was silent for `STALLED_AFTER` heartbeats is stalled;
  silent for `LOST_AFTER`, it is lost. A report in between takes the mark off again. What counts as
  silence is in silence.py.
* Cancelling ends a pending or stalled job at once: there is no worker to ask. A running one is
  marked, and its worker reads the mark in the answer to its next report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from streamkit.config import RequestLimits
from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import JobProgress, JobReport
from streamkit.journal.base import TERMINAL, JobPage

__all__ = [
    "LOST_AFTER",
    "STALLED_AFTER",
    "STATUSES",
    "Job",
    "cancelled",
    "grown_old",
    "page_of",
    "reported",
]

STATUSES = frozenset({"pending", "running", *TERMINAL})

STALLED_AFTER = 2.0
"""Heartbeats without a report until a job is shown as stalled."""
LOST_AFTER = 6.0
"""Heartbeats without a report until it is lost."""
_MESSAGE_COST = 160
_LONGEST_HEARTBEAT = RequestLimits().seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that is stored of a job. `reported_at` is when its worker was last heard of."""

    job_id: str
    status: str
    created_at: datetime
    updated_at: datetime
    reported_at: datetime
    sequence: int = 0
    percentage: int = 0
    current_step: str = ""
    completed: int = 0
    total: int = 0
    error: str = ""
    service: str = ""
    exit_code: int | None = None
    stalled: bool = False
    cancel_requested: bool = False
    cancel_reason: str = ""
    heartbeat: float = 0.0
    traceparent: str = ""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def size(self) -> int:
        """About the bytes of its message."""
        texts = (self.job_id, self.current_step, self.error, self.service, self.traceparent)
        return _MESSAGE_COST + sum(len(text.encode()) for text in texts)

    def progress(self) -> JobProgress:
        """The state as the message that watchers get."""
        return JobProgress(
            job_id=self.job_id,
            percentage=self.percentage,
            status=self.status,
            current_step=self.current_step,
            updated_at=self.updated_at,
            sequence=self.sequence,
            created_at=self.created_at,
            stalled=self.stalled,
            completed=self.completed,
            total=self.total,
            error=self.error,
            service=self.service,
            exit_code=self.exit_code,
            cancel_requested=self.cancel_requested,
            traceparent=self.traceparent,
        )


def reported(job: Job | None, report: JobReport, now: datetime) -> Job:
    """The state after a report; the very same object if the report changes nothing.

    `sequence` is not touched: who stores the state gives it its place. Raises
    InvalidArgumentError for a report that says something impossible.
    """
    _check(report)
    if job is None:
        job = Job(job_id=report.job_id, status="", created_at=now, updated_at=now, reported_at=now)
    elif job.ended:
        return job
    wanted = report.status or "running"
    status = job.status if wanted == "pending" and job.status else wanted
    completed = max(job.completed, report.completed or 0)
    total = report.total if report.total is not None else job.total
    changed = replace(
        job,
        status=status,
        percentage=_percentage(job, report, status, completed, total),
        current_step=job.current_step if report.current_step is None else report.current_step,
        completed=completed,
        total=total,
        error=report.error or job.error,
        service=report.service or job.service,
        exit_code=job.exit_code if report.exit_code is None else report.exit_code,
        stalled=False,
        heartbeat=report.heartbeat.total_seconds() or job.heartbeat,
    )
    if changed.ended:
        changed = _end(changed)
    if changed == job:  # where a report comes from is no news by itself
        return job
    origin = report.traceparent or job.traceparent
    return replace(changed, updated_at=now, reported_at=now, traceparent=origin)


def cancelled(job: Job, reason: str, now: datetime) -> Job:
    """The state after somebody asked for the job to be cancelled."""
    if job.ended or (job.cancel_requested and not job.stalled):
        return job
    if job.status == "pending" or job.stalled:
        ended = replace(job, status="cancelled", stalled=False, cancel_reason=reason)
        return replace(_end(ended), updated_at=now)
    return replace(job, cancel_requested=True, cancel_reason=reason, updated_at=now)


def grown_old(job: Job, now: datetime, silence: float) -> Job:
    """The state after its worker was silent for so many seconds."""
    if job.status != "running" or not job.heartbeat:
        return job
    missed = silence / job.heartbeat
    if missed >= LOST_AFTER:
        error = job.error or f"the worker was silent for {silence:.0f} s"
        return _end(replace(job, status="lost", error=error, updated_at=now))
    if missed >= STALLED_AFTER and not job.stalled:
        return replace(job, stalled=True, updated_at=now)
    return job


def page_of(jobs: Iterable[Job], limit: int, max_bytes: int) -> JobPage:
    """The first of some jobs that are one page; no more than one further is looked at."""
    found: list[JobProgress] = []
    size = 0
    for job in jobs:
        size += job.size
        if len(found) == limit or (size > max_bytes and found):
            return JobPage(found, True)
        found.append(job.progress())
    return JobPage(found, False)


def _check(report: JobReport) -> None:
    if not report.job_id:
        raise InvalidArgumentError("job_id must not be empty")
    if report.status and report.status not in STATUSES:
        known = ", ".join(sorted(STATUSES))
        raise InvalidArgumentError(f"status must be one of {known}, not {report.status!r}")
    if report.percentage is not None and not 0 <= report.percentage <= 100:
        raise InvalidArgumentError(f"percentage must be 0 to 100, not {report.percentage}")
    for name, value in (("completed", report.completed), ("total", report.total)):
        if value is not None and not 0 <= value < 1 << 63:
            raise InvalidArgumentError(f"{name} must not be negative, not {value}")
    if not 0 <= report.heartbeat.total_seconds() <= _LONGEST_HEARTBEAT:
        raise InvalidArgumentError(
            "heartbeat must not be negative or longer than"
            f" {_LONGEST_HEARTBEAT / 86400:g} days, not {report.heartbeat}"
        )


def _percentage(job: Job, report: JobReport, status: str, completed: int, total: int) -> int:
    if status == "completed":
        return 100
    if report.percentage is not None:
        wanted = report.percentage
    elif total:
        wanted = min(100, 100 * completed // total)
    else:
        wanted = 0
    return max(job.percentage, wanted)


def _end(job: Job) -> Job:
    error = job.error
    if job.status == "cancelled" and not error:
        error = job.cancel_reason
    return replace(job, error=error, stalled=False, cancel_requested=False)
