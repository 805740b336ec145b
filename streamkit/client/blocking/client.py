"""Client: AsyncClient for ordinary code. Plain iterators, plain context managers, any thread.

A private event loop runs in a thread, so it works inside a running loop (a notebook) too. After a
fork the child gets a loop, a thread and a connection of its own at its first call.
"""

from __future__ import annotations

import os
import ssl as tls
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.handles import (
    SyncJob,
    SyncLogWriter,
    SyncPublisher,
    SyncQuery,
    SyncStream,
)
from streamkit.client.blocking.portal import Portal, abandon
from streamkit.client.events import OnEvent
from streamkit.client.reading.cursor import OnLoss
from streamkit.client.reading.query import Parameters
from streamkit.client.reading.start import StartAt
from streamkit.client.token import TokenSource
from streamkit.client.writing.writers import OnDrop
from streamkit.config import Backoff
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    ServerStatus,
    SubscribeRequest,
    Table,
    TableSchema,
    Update,
)

__all__ = ["Client"]


class Client:
    """A client of one server for code without an event loop; see AsyncClient for every method.

    Callbacks (`on_event`, `on_loss`, `on_drop`) run in the client's own thread. Any thread may use
    a client; one stream, query or job belongs to one thread at a time.
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
    ) -> None:
        self._make: Callable[[], AsyncClient] = lambda: AsyncClient(
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
        )
        self._lock = threading.Lock()
        self._running: tuple[Portal, AsyncClient] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every stream and writer, the loop and its thread. May be called twice."""
        self._closed = True
        running, self._running = self._running, None
        if running is None:
            return
        portal, client = running
        if portal.pid != os.getpid():
            abandon(running)
            return
        if portal.gone:
            return
        try:
            portal.run(client.close())
        finally:
            portal.close()

    # ---- updates ----

    def publish(
        self, topic: str, message: object, *, metadata: Mapping[str, object] | None = None
    ) -> int:
        portal, client = self._ready()
        return portal.run(client.publish(topic, message, metadata=metadata))

    def publish_many(self, updates: Sequence[Update]) -> list[int]:
        portal, client = self._ready()
        return portal.run(client.publish_many(updates))

    def publisher(
        self,
        *,
        buffer: int = 10_000,
        on_drop: OnDrop | None = None,
        drain_timeout: float | None = 30.0,
    ) -> SyncPublisher:
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
        portal, client = self._ready()
        return SyncStream(
            portal,
            lambda: client.subscribe(*topics, start=start, latest=latest, on_loss=on_loss),
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
        buffer: int = 10_000,
        on_drop: OnDrop | None = None,
        drain_timeout: float | None = 30.0,
    ) -> SyncLogWriter:
        portal, client = self._ready()
        return SyncLogWriter(
            portal,
            lambda: client.log_writer(
                service, buffer=buffer, on_drop=on_drop, drain_timeout=drain_timeout
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
        portal, client = self._ready()
        return SyncStream(
            portal, lambda: client.watch_job(job_id, wait=wait, start=start, on_loss=on_loss)
        )

    def job(
        self,
        job_id: str = "",
        *,
        total: int = 0,
        service: str = "",
        step: str = "",
        heartbeat: float = 15.0,
        required: bool = True,
        buffer: int = 10_000,
        drain_timeout: float = 10.0,
    ) -> SyncJob:
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
        portal, client = self._ready()
        return portal.run(client.jobs(statuses=statuses, since=since, limit=limit))

    def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
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
        portal, client = self._ready()
        return portal.run(client.tables(database))

    def describe(self, table: str, database: str = "") -> TableSchema:
        portal, client = self._ready()
        return portal.run(client.describe(table, database))

    # ---- the server ----

    def status(self) -> ServerStatus:
        portal, client = self._ready()
        return portal.run(client.status())

    def ping(self) -> float:
        portal, client = self._ready()
        return portal.run(client.ping())

    def _ready(self) -> tuple[Portal, AsyncClient]:
        """The loop and the client of this process, made at the first call in it."""
        running = self._running
        if running is not None and running[0].pid == os.getpid():
            return running
        with self._lock:
            if self._closed:
                raise ConnectError("the client is closed")
            running = self._running
            if running is not None and running[0].pid != os.getpid():
                abandon(running)
                running = None
            if running is None:
                running = self._running = (Portal(), self._make())
            return running
