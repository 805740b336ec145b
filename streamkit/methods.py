"""One table: what each of streamkit's own methods needs. A method that is not in it is nobody's.

Methods of other services are allowed by their path (`methods` of a role).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from streamkit.errors import PreconditionError
from streamkit.generated.streamservice import (
    CancelJobRequest,
    JobReport,
    JobRequest,
    LogRequest,
    PublishRequest,
    SubscribeRequest,
    WatchJobsRequest,
    WriteLogsRequest,
    WriteRequest,
)
from streamkit.rights import STORE, Action

__all__ = ["METHODS", "Method", "Records", "check_covered", "method_of", "names_in"]

T = TypeVar("T")

Items = tuple[Action, set[str]]
"""What is to be done, and the names of what it is to be done to."""


class Records(list[T]):
    """The records of a request. They are asked twice for what they name, by who decides about
    access and by who checks them, so the first one leaves it here."""

    names: set[str] | None = None


def names_in(messages: Sequence[Any], field: str) -> set[str]:
    """The topics or services of some records; whatever kind of them it is, it has one `field`."""
    names = getattr(messages, "names", None)
    if names is None:
        names = {getattr(message, field) for message in messages}
        if isinstance(messages, Records):
            messages.names = names
    return names


@dataclass(frozen=True, slots=True)
class Method:
    """What a method needs of its caller."""

    needs: tuple[Action, ...] = ()
    """One of them lets a call begin. Without any, an identity is enough."""
    items: Callable[[Any], Iterable[Items]] | None = None
    """Everything that a request message asks for."""
    weight: Callable[[Any], int] | None = None
    """The records in a request message that count as published."""
    open: bool = False
    """For everybody, also without an identity."""
    hides: bool = False
    """The handler answers for what is not allowed as for what is not there."""
    answers: bool = False
    """The handler checks each message and refuses it in its reply; the stream goes on."""
    narrows: tuple[Action, str] | None = None
    """Of a request that names nothing: what it means all of, and the field that could name it."""
    runs_query: bool = False
    roles: frozenset[str] = frozenset()
    """Of another service: whoever has one of these may call it."""


def _topics(request: SubscribeRequest) -> Iterator[Items]:
    yield Action.SUBSCRIBE, set(request.topics)


def _services(request: LogRequest) -> Iterator[Items]:
    names = {request.service_name, *request.services}
    yield Action.LOGS, names if request.service_name else names - {""}


def _watched(request: JobRequest) -> Iterator[Items]:
    yield Action.JOBS, {request.job_id}


def _followed(request: WatchJobsRequest) -> Iterator[Items]:
    yield Action.JOBS, set(request.jobs)


def _database(request: Any) -> Iterator[Items]:
    yield Action.QUERY, {request.database or STORE}


def _updates(request: PublishRequest) -> Iterator[Items]:
    yield Action.PUBLISH, names_in(request.updates, "topic")


def _entries(request: WriteLogsRequest) -> Iterator[Items]:
    yield Action.WRITE_LOGS, names_in(request.entries, "service")


def _report(report: JobReport) -> Iterator[Items]:
    # A job without an id gets any id of the server's choice.
    yield Action.REPORT_JOBS, {report.job_id or "*"}


def _write(request: WriteRequest) -> Iterator[Items]:
    if request.updates:
        yield Action.PUBLISH, names_in(request.updates, "topic")
    if request.logs:
        yield Action.WRITE_LOGS, names_in(request.logs, "service")
    if request.jobs:
        yield Action.REPORT_JOBS, {report.job_id or "*" for report in request.jobs}


def _cancelled(request: CancelJobRequest) -> Iterator[Items]:
    yield Action.CANCEL_JOBS, {request.job_id}


def _written(request: WriteRequest) -> int:
    return len(request.updates) + len(request.logs) + len(request.jobs)


def _one(_: object) -> int:
    return 1


_REPORT = Method((Action.REPORT_JOBS,), _report, weight=_one)
_DATABASE = Method((Action.QUERY,), _database, hides=True)
_READ = "/streamservice.StreamService/"
_WRITE = "/streamservice.ProducerService/"
_ADMIN = "/streamservice.AdminService/"
_HEALTH = "/grpc.health.v1.Health/"

METHODS: dict[str, Method] = {
    _READ + "SubscribeToUpdates": Method((Action.SUBSCRIBE,), _topics),
    _READ + "StreamQueryResults": Method((Action.QUERY,), _database, hides=True, runs_query=True),
    _READ + "WatchJobProgress": Method((Action.JOBS,), _watched, hides=True),
    _READ + "TailLogs": Method((Action.LOGS,), _services, narrows=(Action.LOGS, "services")),
    _WRITE + "Publish": Method((Action.PUBLISH,), _updates, weight=lambda m: len(m.updates)),
    _WRITE + "WriteLogs": Method((Action.WRITE_LOGS,), _entries, weight=lambda m: len(m.entries)),
    _WRITE + "Write": Method(
        (Action.PUBLISH, Action.WRITE_LOGS, Action.REPORT_JOBS),
        _write,
        weight=_written,
        answers=True,
    ),
    _WRITE + "CreateJob": _REPORT,
    _WRITE + "UpdateJob": _REPORT,
    _WRITE + "FinishJob": _REPORT,
    _WRITE + "CancelJob": Method((Action.CANCEL_JOBS,), _cancelled, hides=True),
    _WRITE + "ListJobs": Method((Action.JOBS,)),
    _WRITE + "WatchJobs": Method((Action.JOBS,), _followed, narrows=(Action.JOBS, "jobs")),
    _ADMIN + "GetStatus": Method(),
    _ADMIN + "ListCalls": Method((Action.ADMIN,)),
    _ADMIN + "KickCall": Method((Action.ADMIN,)),
    _ADMIN + "Backup": Method((Action.ADMIN,)),
    _ADMIN + "Prune": Method((Action.ADMIN,)),
    _ADMIN + "ListTables": _DATABASE,
    _ADMIN + "DescribeTable": _DATABASE,
    # Probes have no token, and learn nothing but whether the server serves.
    _HEALTH + "Check": Method(open=True),
    _HEALTH + "List": Method(open=True),
    _HEALTH + "Watch": Method(open=True),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Method(),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Method(),
}

_OURS = ("streamservice.", "grpc.")


def check_covered(paths: Iterable[str]) -> None:
    """Raise PreconditionError for a method of ours that nobody decided about."""
    missing = sorted(path for path in paths if path[1:].startswith(_OURS) and path not in METHODS)
    if missing:
        raise PreconditionError(f"no rule of access says who may call {', '.join(missing)}")


def method_of(path: str) -> Method:
    """What a method needs; one of another service is asked for by its path."""
    return METHODS.get(path) or Method((Action.METHODS,))
