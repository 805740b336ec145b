"""Messages as JSON objects and plain lines. Pure: no terminal, no rich, no colour.

JSON is the data: always UTC, every field that says something, the same for every output. Text is
for eyes: local time unless asked otherwise. Nothing here is sanitised; `output` and `rendering` do
that at the edge.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamkit.generated.streamservice import JobProgress, LogEntry, Update

__all__ = [
    "TIME_STYLES",
    "clock_text",
    "iso",
    "job_line",
    "job_object",
    "log_object",
    "seconds_text",
    "size_text",
    "update_object",
]

TIME_STYLES = ("local", "clock", "utc", "iso", "relative", "none")


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the microsecond where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def clock_text(moment: datetime, style: str, now: datetime | None = None) -> str:
    """A time for eyes, to the millisecond; `clock` leaves out the date, `relative` is an age."""
    if style == "none":
        return ""
    if style == "iso":
        return iso(moment)
    if style == "relative":
        current = datetime.now(UTC) if now is None else now
        return f"{seconds_text(max(0.0, (current - moment).total_seconds()))} ago"
    shown = moment.astimezone(UTC) if style == "utc" else moment.astimezone()
    day = "" if style == "clock" else f"{shown:%Y-%m-%d} "
    return f"{day}{shown:%H:%M:%S}.{shown.microsecond // 1000:03d}"


def seconds_text(seconds: float) -> str:
    """0.3s, 12s, 3m12s, 2h05m, 3d04h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def size_text(count: float) -> str:
    """0 B, 1.5 KiB, 20 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def update_object(update: Update) -> dict[str, Any]:
    """One update; `skipped` only where a latest-only subscription passed records over."""
    shown: dict[str, Any] = {
        "topic": update.topic,
        "sequence": update.sequence,
        "timestamp": iso(update.timestamp),
        "message": update.message,
        "metadata": dict(update.metadata),
    }
    if update.skipped:
        shown["skipped"] = update.skipped
    return shown


def log_object(entry: LogEntry) -> dict[str, Any]:
    """One log line."""
    shown: dict[str, Any] = {
        "timestamp": iso(entry.timestamp),
        "service": entry.service,
        "level": entry.level,
        "message": entry.message,
        "sequence": entry.sequence,
        "fields": dict(entry.fields),
    }
    if entry.skipped:
        shown["skipped"] = entry.skipped
    return shown


def job_object(job: JobProgress) -> dict[str, Any]:
    """One state of a job; what is not known is left out."""
    shown: dict[str, Any] = {
        "job_id": job.job_id,
        "status": job.status,
        "percentage": job.percentage,
        "current_step": job.current_step,
        "updated_at": iso(job.updated_at),
        "sequence": job.sequence,
    }
    if job.created_at.timestamp() > 0:
        shown["created_at"] = iso(job.created_at)
    if job.completed or job.total:
        shown |= {"completed": job.completed, "total": job.total}
    if job.service:
        shown["service"] = job.service
    if job.error:
        shown["error"] = job.error
    if job.exit_code is not None:
        shown["exit_code"] = job.exit_code
    if job.stalled:
        shown["stalled"] = True
    if job.cancel_requested:
        shown["cancel_requested"] = True
    return shown


def job_line(job: JobProgress) -> str:
    """One state of a job in one line: `build: running 45% (450/1000) compiling`."""
    parts = [f"{job.job_id}: {'stalled' if job.stalled else job.status}"]
    if job.total or job.percentage:
        parts.append(f"{job.percentage}%")
    if job.total:
        parts.append(f"({job.completed}/{job.total})")
    elif job.completed:
        parts.append(f"({job.completed})")
    if job.current_step:
        parts.append(job.current_step)
    if job.error:
        parts.append(f"- {job.error}")
    return " ".join(parts)
