"""A store as lines of JSON and back. Pure.

Every line has a producer and a request number that are made of the place it had in its store, so a
server tells by itself what it has stored before. One producer stands for so few records that the
server remembers all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamkit.cli.output.records import job_object, log_object, update_object
from streamkit.generated.streamservice import (
    JobProgress,
    JobReport,
    LogEntry,
    Producer,
    Update,
    WriteRequest,
)

__all__ = ["line_of", "request_of"]

_BLOCK = 10_000
"""Records of one producer; a server remembers 16,384 requests of each."""
_NAMES = {"updates": "u", "logs": "l", "jobs": "j"}


def line_of(record: Update | LogEntry | JobProgress, epoch: str) -> dict[str, Any]:
    """A record as a line, of a store with this epoch."""
    match record:
        case Update():
            stream, shown = "updates", update_object(record)
        case LogEntry():
            stream, shown = "logs", log_object(record)
        case JobProgress():
            stream, shown = "jobs", job_object(record)
    block, place = divmod(record.sequence, _BLOCK)
    named = {"producer": f"export-{epoch}-{_NAMES[stream]}{block}", "request": place + 1}
    return {"stream": stream, **named, **shown}


def request_of(line: str) -> WriteRequest:
    """The request that stores what a line says. ValueError, which does not repeat the line."""
    try:
        given = json.loads(line)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(given, dict):
        raise ValueError("it is no object")
    read = _Reader(given)
    request = WriteRequest(Producer(read.text("producer"), read.number("request")))
    match given.get("stream"):
        case "updates":
            update = Update(
                read.text("topic"), read.text("message"), metadata=read.texts("metadata")
            )
            if "timestamp" in given:
                update.timestamp = read.moment("timestamp")
            request.updates = [update]
        case "logs":
            entry = LogEntry(
                level=read.text("level"),
                message=read.text("message"),
                service=read.text("service"),
                fields=read.texts("fields"),
            )
            if "timestamp" in given:
                entry.timestamp = read.moment("timestamp")
            request.logs = [entry]
        case "jobs":
            request.jobs = [_job(read)]
        case _:
            raise ValueError('its "stream" is not "updates", "logs" or "jobs"')
    return request


def _job(read: _Reader) -> JobReport:
    report = JobReport(
        job_id=read.text("job_id"),
        status=read.text("status"),
        error=read.text("error", ""),
        service=read.text("service", ""),
    )
    if report.status == "lost":  # only a server says that, of a worker that it has waited for
        report.status, report.error = "failed", report.error or "lost"
    for name in ("percentage", "completed", "total", "exit_code"):
        if name in read.given:
            setattr(report, name, read.number(name))
    if read.given.get("current_step"):
        report.current_step = read.text("current_step")
    return report


class _Reader:
    """Takes values of the right kind out of an object."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    def text(self, key: str, default: str | None = None) -> str:
        value = self.given.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"its {key!r} is no text")
        return value

    def number(self, key: str) -> int:
        value = self.given.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not -(1 << 31) < value < 1 << 63
        ):
            raise ValueError(f"its {key!r} is no whole number")
        return int(value)

    def texts(self, key: str) -> dict[str, str]:
        value = self.given.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise ValueError(f"its {key!r} is no object of texts")
        return value

    def moment(self, key: str) -> datetime:
        try:
            found = datetime.fromisoformat(self.text(key))
        except ValueError:
            raise ValueError(f"its {key!r} is no time of ISO 8601") from None
        if found.tzinfo is None:
            raise ValueError(f"its {key!r} has no time zone")
        return found
