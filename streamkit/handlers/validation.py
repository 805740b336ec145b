"""The rules that requests obey, as pure functions from messages to the journal's terms.

Each raises InvalidArgumentError whose message begins with the field that is wrong, so that a caller
can find it in what they sent.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import betterproto

from streamkit.config import RequestLimits
from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import JobReport, LogEntry, Producer, StartFrom, Update
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.journal.base import ProducerId, Start
from streamkit.methods import names_in
from streamkit.terms import LEVELS, TERMINAL, Position

__all__ = [
    "check_count",
    "check_job_id",
    "check_job_report",
    "check_length",
    "check_log_entries",
    "check_reason",
    "check_statuses",
    "check_topics",
    "check_updates",
    "job_patterns",
    "level_rank",
    "producer_id",
    "seconds",
    "service_patterns",
    "start_from",
]

_RANKS = {level: rank for rank, level in enumerate(LEVELS)}
"""Asking for a level means "this one and above"."""

_LEVEL_ALIASES = {
    **{name: name for name in LEVELS},
    **dict.fromkeys(("trace", "verbose", "fine", "finer", "finest"), "debug"),
    **dict.fromkeys(("", "information", "notice", "log"), "info"),
    "warning": "warn",
    **dict.fromkeys(
        ("err", "severe", "critical", "crit", "fatal", "alert", "emerg", "emergency", "panic"),
        "error",
    ),
}
"""What loggers call their levels, in lower case. A name that is not here counts as info."""

_STATUSES = frozenset({"pending", "running"}) | TERMINAL
_REPORTABLE = _STATUSES - {"lost"}  # only the server finds that a worker is lost
_LIMITS = RequestLimits()
_CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


# ---- names ----


def _remembered(fault_of: Callable[[str], str]) -> Callable[[str], str]:
    """The same, asked once for each of the last names; one that is too long is not kept."""
    remembered = lru_cache(maxsize=8_192)(fault_of)

    def checked(name: str) -> str:
        if len(name) > _LIMITS.name:
            return f"must not be longer than {_LIMITS.name} characters"
        return remembered(name)

    return checked


@_remembered
def _name_fault(name: str) -> str:
    """Why this is no name of anything, or ""."""
    if not name:
        return "must not be empty"
    if any(unicodedata.category(character) in _CONTROL_CATEGORIES for character in name):
        return "must not contain control characters"
    return ""


@_remembered
def _pattern_fault(pattern: str) -> str:
    fault = _name_fault(pattern)
    if fault:
        return fault
    if any(character.isspace() for character in pattern):
        return "must not contain spaces"
    tokens = pattern.split(".")
    for place, token in enumerate(tokens):
        if not token:
            return "must not have an empty token between dots"
        if "*" in token and token != "*":
            return 'has a "*" that is not a whole token (orders.*)'
        if ">" in token and (token != ">" or place != len(tokens) - 1):
            return 'has a ">" that is not the whole last token (orders.>)'
    return _stars_fault(pattern)


def _stars_fault(pattern: str) -> str:
    if pattern.count("*") > _LIMITS.stars:
        return f'must not have more than {_LIMITS.stars} "*"'
    return ""


@_remembered
def _service_pattern_fault(pattern: str) -> str:
    return _name_fault(pattern) or _stars_fault(pattern)


@_remembered
def _topic_fault(topic: str) -> str:
    fault = _pattern_fault(topic)
    if not fault and ("*" in topic or ">" in topic):
        return "must not contain wildcards"
    return fault


@_remembered
def _service_fault(service: str) -> str:
    fault = _name_fault(service)
    if not fault and "*" in service:
        return 'must not contain "*"'
    return fault


def _require(fault: str, field: str, value: str) -> None:
    if fault:
        shown = f" (it is {value[:80]!r})" if value else ""
        raise InvalidArgumentError(f"{field} {fault}{shown}")


def check_topics(topics: Sequence[str]) -> tuple[str, ...]:
    """The patterns of a subscription, each once."""
    if not topics:
        raise InvalidArgumentError("topics must not be empty", hint='Ask for ">" to get all.')
    return _patterns(topics, "topics", _pattern_fault)


def service_patterns(name: str, more: Sequence[str]) -> tuple[str, ...]:
    """The patterns of a log request, each once; none means every service."""
    return _patterns([name] if name else [], "service_name", _service_pattern_fault) + _patterns(
        more, "services", _service_pattern_fault
    )


def job_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns of jobs, each once; none means every job."""
    return _patterns(patterns, "jobs", _service_pattern_fault)


def _patterns(
    patterns: Sequence[str], field: str, fault_of: Callable[[str], str]
) -> tuple[str, ...]:
    if len(patterns) > _LIMITS.patterns:
        raise InvalidArgumentError(f"{field} must not hold more than {_LIMITS.patterns} patterns")
    for place, pattern in enumerate(patterns):
        shown = field if field == "service_name" else f"{field}[{place}]"
        _require(fault_of(pattern), shown, pattern)
    return tuple(dict.fromkeys(patterns))


def check_job_id(job_id: str, field: str = "job_id") -> str:
    _require(_name_fault(job_id), field, job_id)
    return job_id


# ---- numbers ----


def check_count(value: int, field: str) -> int:
    if value < 0:
        raise InvalidArgumentError(f"{field} must not be negative (it is {value})")
    return value


def _require_count(value: int, field: str) -> None:
    if value > _LIMITS.count:
        raise InvalidArgumentError(f"{field} must be less than 2^63 (it is {value})")


QUICKEST_HEARTBEAT = 0.1
"""Seconds; who asks for a quicker one gets this."""


def seconds(value: timedelta, field: str) -> float:
    """A duration that may be zero but neither negative nor beyond all use."""
    length = value.total_seconds()
    if length < 0:
        raise InvalidArgumentError(f"{field} must not be negative (it is {length:g} s)")
    if length > _LIMITS.seconds:
        raise InvalidArgumentError(
            f"{field} must not be longer than {_LIMITS.seconds / 86400:g} days"
            f" (it is {length / 86400:g})"
        )
    return length


def level_rank(level: str) -> int:
    """The lowest rank that a request for `level` wants; empty means all."""
    if not level:
        return 0
    rank = _RANKS.get(level.lower())
    if rank is None:
        raise InvalidArgumentError(
            f"log_level must be debug, info, warn or error (it is {level[:80]!r})"
        )
    return rank


def start_from(place: StartFrom) -> Start | None:
    """Where a stream shall start; None if the request does not say."""
    match betterproto.which_one_of(place, "place"):
        case "new", _:
            return Start()
        case "all", _:
            return Start(all=True)
        case "last", int(count):
            _require_count(count, "start.last")
            return Start(last=count) if count else Start()
        case "since", datetime() as since:
            return Start(since=since)
        case "after", WirePosition() as after:
            _require_count(after.sequence, "start.after.sequence")
            return Start(after=Position(after.epoch, after.sequence))
    return None


# ---- what producers send ----


def producer_id(producer: Producer) -> ProducerId | None:
    """Who writes; None if the request does not say. Both fields are needed or none."""
    if not producer.id and not producer.sequence:
        return None
    _require(_name_fault(producer.id), "producer.id", producer.id)
    if not producer.sequence:
        raise InvalidArgumentError("producer.sequence must count from 1")
    _require_count(producer.sequence, "producer.sequence")
    return ProducerId(producer.id, producer.sequence)


def check_updates(updates: Sequence[Update]) -> None:
    """Topics are plain names. What the server sets (sequence, control, skipped) is not looked at:
    a journal does not take it from a producer."""
    for topic in names_in(updates, "topic"):
        fault = _topic_fault(topic)
        if fault:
            place = [update.topic for update in updates].index(topic)
            _require(fault, f"updates[{place}].topic", topic)


def check_log_entries(entries: Sequence[LogEntry], field: str) -> None:
    """Map every level to one of the four, keeping the producer's own name in `fields`."""
    for service in names_in(entries, "service"):
        fault = _service_fault(service)
        if fault:
            place = [entry.service for entry in entries].index(service)
            _require(fault, f"{field}[{place}].service", service)
    for entry in entries:
        level = entry.level
        if level not in _RANKS:
            _map_level(entry, level)


def _map_level(entry: LogEntry, level: str) -> None:
    lower = level.strip().lower()
    entry.level = _LEVEL_ALIASES.get(lower, "info")
    if level and lower != entry.level:
        entry.fields.setdefault("level", level)


def check_job_report(report: JobReport, field: str = "", *, finish: bool = False) -> None:
    """What a worker may say; `field` is the path of the report in the request."""
    check_job_id(report.job_id, f"{field}job_id")
    allowed = TERMINAL - {"lost"} if finish else _REPORTABLE
    if report.status not in allowed and (finish or report.status):
        names = ", ".join(sorted(allowed))
        raise InvalidArgumentError(
            f"{field}status must be one of {names} (it is {report.status[:80]!r})"
        )
    if report.percentage is not None and not 0 <= report.percentage <= 100:
        raise InvalidArgumentError(
            f"{field}percentage must be from 0 to 100 (it is {report.percentage})"
        )
    check_length(report.current_step or "", _LIMITS.step, f"{field}current_step")
    check_length(report.error, _LIMITS.error, f"{field}error")
    check_length(report.traceparent, _LIMITS.name, f"{field}traceparent")
    check_count(report.completed or 0, f"{field}completed")
    check_count(report.total or 0, f"{field}total")
    seconds(report.heartbeat, f"{field}heartbeat")
    if report.service:
        _require(_service_fault(report.service), f"{field}service", report.service)


def check_reason(reason: str) -> str:
    """Why a job is cancelled; it becomes the job's error."""
    return check_length(reason, _LIMITS.error, "reason")


def check_length(text: str, most: int, field: str) -> str:
    if len(text) > most:
        raise InvalidArgumentError(
            f"{field} must not be longer than {most} characters (it has {len(text)})"
        )
    return text


def check_statuses(statuses: Sequence[str]) -> tuple[str, ...]:
    if len(statuses) > _LIMITS.statuses:
        raise InvalidArgumentError(
            f"statuses must not hold more than {_LIMITS.statuses} (they are {len(statuses)})"
        )
    for place, status in enumerate(statuses):
        if status not in _STATUSES:
            names = ", ".join(sorted(_STATUSES))
            raise InvalidArgumentError(
                f"statuses[{place}] must be one of {names} (it is {status[:80]!r})"
            )
    return tuple(dict.fromkeys(statuses))
