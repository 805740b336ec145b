"""Client: AsyncClient for ordinary code. Written by scripts/blocking.py."""

from __future__ import annotations

import os
import ssl as tls
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.base import Blocking
from streamkit.client.blocking.handles import SyncLogWriter, SyncPublisher, SyncStream
from streamkit.client.blocking.results import SyncJob, SyncQuery
from streamkit.client.events import OnEvent
from streamkit.client.reading.cursor import OnLoss
from streamkit.client.reading.query import Parameters
from streamkit.client.reading.start import StartAt
from streamkit.client.token import TokenSource
from streamkit.client.writing.writers import OnDrop
from streamkit.config import Backoff
from streamkit.generated.streamservice import (
    CallInfo,
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    Pruned,
    ServerStatus,
    SubscribeRequest,
    Table,
    TableSchema,
    Update,
    WatchJobsRequest,
    WriteReply,
    WriteRequest,
)

__all__ = ["Client"]


class Client(Blocking):
    """AsyncClient for code without an event loop: plain iterators, plain context managers.

    A private loop runs in a thread, so it works inside a running one (a notebook) too; a forked
    child gets its own at its first call. Callbacks (`on_event`, `on_loss`, `on_drop`) run in that
    thread. Any thread may use a client; one stream, query or job belongs to one at a time.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        reconnect: bool = True,
        on_event: OnEvent | None = None,
        backoff: Backoff | None = None,
        connect_timeout: float = 20.0,
        idle_timeout: float = 45.0,
        ssl: tls.SSLContext | None = None,
        metadata: Mapping[str, str] | None = None,
        token: TokenSource | None = None,
        insecure: bool = False,
        service_config: str | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            lambda: AsyncClient(
                address,
                reconnect=reconnect,
                on_event=on_event,
                backoff=backoff,
                connect_timeout=connect_timeout,
                idle_timeout=idle_timeout,
                ssl=ssl,
                metadata=metadata,
                token=token,
                insecure=insecure,
                service_config=service_config,
            )
        )

    # ---- updates ----

    def publish(
        self, topic: str, message: object, *, metadata: Mapping[str, object] | None = None
    ) -> int:
        """Store one message and return its sequence once it is durable.

        Text is sent as it is, bytes as UTF-8 with replacements, anything else as JSON. Repeated
        by itself when the connection breaks, and stored once all the same. Calls that are made at
        once share a request; what is wrong with one is raised by that one alone.
        """
        portal, client = self._ready()
        return portal.run(client.publish(topic, message, metadata=metadata))

    def publish_many(self, updates: Sequence[Update]) -> list[int]:
        """Store all updates or none, in order; return their sequences."""
        portal, client = self._ready()
        return portal.run(client.publish_many(updates))

    def publisher(
        self,
        *,
        buffer: int = 10000,
        on_drop: OnDrop | None = None,
        drain_timeout: float | None = 30.0,
    ) -> SyncPublisher:
        """A pipeline for many messages. Leaving it waits `drain_timeout` for the rest."""
        portal, client = self._ready()
        return SyncPublisher(
            portal,
            lambda: client.publisher(buffer=buffer, on_drop=on_drop, drain_timeout=drain_timeout),
        )

    def subscribe(
        self,
        *topics: str,
        start: StartAt | None = None,
        latest: bool = False,
        on_loss: OnLoss | None = None,
    ) -> SyncStream[SubscribeRequest, Update]:
        """Updates of some topics; "orders.*" is one level, "orders.>" all below.

        `latest`: when this reader is slow, keep only the newest of each topic. `on_loss` is
        called when retention took records before they were read; without it that is an error.
        """
        portal, client = self._ready()
        return SyncStream(
            portal, lambda: client.subscribe(*topics, start=start, latest=latest, on_loss=on_loss)
        )

    # ---- logs ----

    def logs(
        self,
        service: str = "",
        *more_services: str,
        level: str = "",
        lines: int = 0,
        follow: bool = False,
        start: StartAt | None = None,
        latest: bool = False,
        on_loss: OnLoss | None = None,
    ) -> SyncStream[LogRequest, LogEntry]:
        """Log lines of some services (patterns allowed, none: all) at or above a level."""
        portal, client = self._ready()
        return SyncStream(
            portal,
            lambda: client.logs(
                service,
                *more_services,
                level=level,
                lines=lines,
                follow=follow,
                start=start,
                latest=latest,
                on_loss=on_loss,
            ),
        )

    def log_writer(
        self,
        service: str,
        *,
        buffer: int = 10000,
        on_drop: OnDrop | None = None,
        drain_timeout: float | None = 30.0,
        producer_id: str = "",
    ) -> SyncLogWriter:
        """A pipeline for one service's log lines.

        `producer_id` is for a writer that counts its own requests, see `LogWriter.send_request`.
        """
        portal, client = self._ready()
        return SyncLogWriter(
            portal,
            lambda: client.log_writer(
                service,
                buffer=buffer,
                on_drop=on_drop,
                drain_timeout=drain_timeout,
                producer_id=producer_id,
            ),
        )

    # ---- jobs ----

    def watch_job(
        self,
        job_id: str,
        *,
        wait: float = 0.0,
        start: StartAt | None = None,
        on_loss: OnLoss | None = None,
    ) -> SyncStream[JobRequest, JobProgress]:
        """The state of a job, then every change; it ends after the first terminal status.

        Raises NotFoundError for an unknown job after `wait` seconds.
        """
        portal, client = self._ready()
        return SyncStream(
            portal, lambda: client.watch_job(job_id, wait=wait, start=start, on_loss=on_loss)
        )

    def job_events(
        self, *jobs: str, start: StartAt | None = None, on_loss: OnLoss | None = None
    ) -> SyncStream[WatchJobsRequest, JobProgress]:
        """Every change of some jobs; "*" stands for any characters, and none means all of them.

        Without a start the present states of jobs that have not ended come first.
        """
        portal, client = self._ready()
        return SyncStream(portal, lambda: client.job_events(*jobs, start=start, on_loss=on_loss))

    def job(
        self,
        job_id: str = "",
        *,
        total: int = 0,
        service: str = "",
        step: str = "",
        heartbeat: float = 15.0,
        required: bool = True,
        buffer: int = 10000,
        drain_timeout: float = 10.0,
    ) -> SyncJob:
        """A job of our own that others can watch.

        An id that has had its run gets the next free number ("import", "import-2"): the handle's
        `id` says which. AlreadyExistsError means that the job is still running. A server that is
        away raises ConnectError on entering; with `required=False` the job runs all the same and
        is reported once the server is there.
        """
        portal, client = self._ready()
        return SyncJob(
            portal,
            lambda: client.job(
                job_id,
                total=total,
                service=service,
                step=step,
                heartbeat=heartbeat,
                required=required,
                buffer=buffer,
                drain_timeout=drain_timeout,
            ),
        )

    def jobs(
        self, *, statuses: Sequence[str] = (), since: datetime | None = None, limit: int = 100
    ) -> list[JobProgress]:
        """The jobs that changed last, newest first; as many requests as that takes."""
        portal, client = self._ready()
        return portal.run(client.jobs(statuses=statuses, since=since, limit=limit))

    def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        """Ask a job's worker to stop; a job that nobody runs is cancelled at once."""
        portal, client = self._ready()
        return portal.run(client.cancel_job(job_id, reason))

    # ---- queries ----

    def query(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        database: str = "",
        batch: int = 0,
        columns: bool = True,
        timeout: float | None = None,
        format: Literal["rows", "arrow"] = "rows",
    ) -> SyncQuery:
        """The result of one read-only statement; see Query.

        `batch` is the rows of a message; 0 means 100, in Arrow 8192.
        """
        portal, client = self._ready()
        return SyncQuery(
            portal,
            lambda: client.query(
                sql,
                parameters,
                database=database,
                batch=batch,
                columns=columns,
                timeout=timeout,
                format=format,
            ),
        )

    def tables(self, database: str = "") -> list[Table]:
        """The tables and views that can be queried."""
        portal, client = self._ready()
        return portal.run(client.tables(database))

    def describe(self, table: str, database: str = "") -> TableSchema:
        """One table's columns. Raises NotFoundError."""
        portal, client = self._ready()
        return portal.run(client.describe(table, database))

    # ---- the server ----

    def status(self) -> ServerStatus:
        """What the server says about itself."""
        portal, client = self._ready()
        return portal.run(client.status())

    def calls(self) -> list[CallInfo]:
        """The calls that run on the server, the oldest first. For administrators."""
        portal, client = self._ready()
        return portal.run(client.calls())

    def kick(self, call_id: int, reason: str = "") -> CallInfo:
        """End a call, whose client is told not to come back. For administrators; NotFoundError."""
        portal, client = self._ready()
        return portal.run(client.kick(call_id, reason))

    def backup(self, path: str | os.PathLike[str]) -> int:
        """Save all that the server stores, as of now, for `streamkit restore`; return its bytes.

        For administrators. The file is whole, or what it was before.
        """
        portal, client = self._ready()
        return portal.run(client.backup(path))

    def replay(self, requests: Sequence[WriteRequest]) -> list[WriteReply]:
        """Store what others have produced: each request has its producer and number, by which the
        server knows one that it has stored already (within a day).

        Not repeated by itself: a lost connection and the first refusal are raised, and all of it
        may be sent again.
        """
        portal, client = self._ready()
        return portal.run(client.replay(requests))

    def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        """Let the server remove what it need not keep any more, now instead of little by little;
        or, with `dry_run`, only say what. For administrators.
        """
        portal, client = self._ready()
        return portal.run(client.prune(dry_run=dry_run))

    def ping(self) -> float:
        """Seconds that one small call takes there and back."""
        portal, client = self._ready()
        return portal.run(client.ping())
