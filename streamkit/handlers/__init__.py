"""The services that a streamkit server mounts, each a translation from messages to the domain.

Every handler overrides its RPCs of a generated service base and takes what it needs as keywords, so
any of them can be mounted alone: `UpdatesHandler(journal=journal)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamkit.config import QueryLimits
from streamkit.database import Databases
from streamkit.framing import Framed
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogRequest,
    QueryRequest,
    StreamServiceBase,
    SubscribeRequest,
)
from streamkit.handlers.admin import AdminHandler
from streamkit.handlers.health import HealthHandler
from streamkit.handlers.jobs import JobsHandler
from streamkit.handlers.logs import LogsHandler
from streamkit.handlers.producer import ProducerHandler
from streamkit.handlers.queries import QueriesHandler
from streamkit.handlers.reflection import ReflectionAlphaHandler, ReflectionHandler
from streamkit.handlers.updates import UpdatesHandler
from streamkit.journal import Journal

__all__ = [
    "AdminHandler",
    "HealthHandler",
    "JobsHandler",
    "LogsHandler",
    "ProducerHandler",
    "QueriesHandler",
    "ReflectionAlphaHandler",
    "ReflectionHandler",
    "StreamService",
    "UpdatesHandler",
]


class StreamService(StreamServiceBase):
    """All four streams as one service."""

    def __init__(
        self, *, journal: Journal, databases: Databases, limits: QueryLimits | None = None
    ) -> None:
        self._updates = UpdatesHandler(journal=journal)
        self._queries = QueriesHandler(databases=databases, limits=limits)
        self._jobs = JobsHandler(journal=journal)
        self._logs = LogsHandler(journal=journal)

    def subscribe_to_updates(  # type: ignore[override]  # ready frames instead of messages
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Framed]:
        return self._updates.subscribe_to_updates(subscribe_request)

    def stream_query_results(  # type: ignore[override]  # as above
        self, query_request: QueryRequest
    ) -> AsyncIterator[Framed]:
        return self._queries.stream_query_results(query_request)

    def watch_job_progress(self, job_request: JobRequest) -> AsyncIterator[JobProgress]:
        return self._jobs.watch_job_progress(job_request)

    def tail_logs(  # type: ignore[override]  # as above
        self, log_request: LogRequest
    ) -> AsyncIterator[Framed]:
        return self._logs.tail_logs(log_request)
