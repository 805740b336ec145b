"""AsyncClient: everything that a server of streamkit offers, from one event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from streamkit.client.backup import save_backup
from streamkit.client.link import Closer, Link
from streamkit.client.reading import streams
from streamkit.client.reading.cursor import OnLoss
from streamkit.client.reading.query import Parameters, Query, make_request
from streamkit.client.reading.start import StartAt
from streamkit.client.reading.streams import JobEvents, JobWatch, LogStream, Subscription
from streamkit.client.writing.job import JobHandle
from streamkit.client.writing.outbox import Outbox
from streamkit.client.writing.pump import Pump
from streamkit.client.writing.replay import replay
from streamkit.client.writing.together import Together
from streamkit.client.writing.writers import LogWriter, OnDrop, Publisher, make_update
from streamkit.errors import (
    AlreadyExistsError,
    ConnectError,
)
from streamkit.generated.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from streamkit.generated.streamservice import (
    BackupChunk,
    BackupRequest,
    CallInfo,
    CancelJobRequest,
    DescribeTableRequest,
    JobProgress,
    JobReport,
    KickCallRequest,
    ListCallsReply,
    ListCallsRequest,
    ListJobsReply,
    ListJobsRequest,
    ListTablesReply,
    ListTablesRequest,
    Producer,
    Pruned,
    PruneReply,
    PruneRequest,
    PublishRequest,
    ServerStatus,
    StatusRequest,
    Table,
    TableSchema,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.terms import TERMINAL

__all__ = ["AsyncClient"]

_PRODUCER = "/streamservice.ProducerService/"
_ADMIN = "/streamservice.AdminService/"


class AsyncClient(Link):
    """A client of one server: one connection, opened when first needed, on one event loop.

    `address` is "host:port" or "unix:PATH", or several of them with commas between (see Channel);
    without one it is $STREAMKIT_SERVER, else localhost:50051. A client whose loop has ended
    (`asyncio.run` twice) dials anew on the next one.

    With `reconnect` broken streams resume after their last delivered record and single calls are
    repeated; a server that was never there is not waited for, so a wrong address fails at once.
    `token`, else $STREAMKIT_TOKEN, is shown with every call; a function is asked for it each time,
    and it goes only over TLS, the loopback or a unix socket unless `insecure` is said.
    `service_config` is gRPC's, as Channel takes it: deadlines and retries of the methods that it
    names. What happens is told to `on_event`. Streams silent for `idle_timeout` seconds are taken
    for dead. Everything that fails raises a StreamkitError. Leaving the context ends all that runs.
    """

    _requests = 0
    _producers = 0
    _together: Together | None = None

    # ---- updates ----

    async def publish(
        self, topic: str, message: object, *, metadata: Mapping[str, object] | None = None
    ) -> int:
        """Store one message and return its sequence once it is durable.

        Text is sent as it is, bytes as UTF-8 with replacements, anything else as JSON. Repeated
        by itself when the connection breaks, and stored once all the same. Calls that are made at
        once share a request; what is wrong with one is raised by that one alone.
        """
        update, size = make_update(topic, message, metadata)
        return await self._publishes().publish(update, size)

    async def publish_many(self, updates: Sequence[Update]) -> list[int]:
        """Store all updates or none, in order; return their sequences."""
        if not updates:
            return []
        request = PublishRequest(producer=self._next_request(), updates=list(updates))
        reply = await self._unary(_PRODUCER + "Publish", request, WriteReply)
        first = reply.updates.first
        return list(range(first, first + reply.updates.count))

    def publisher(
        self,
        *,
        buffer: int = 10_000,
        on_drop: OnDrop | None = None,
        drain_timeout: float | None = 30.0,
    ) -> Publisher:
        """A pipeline for many messages. Leaving it waits `drain_timeout` for the rest."""
        pump = self._pump("publisher", Outbox(self._producer(), records=buffer), on_drop)
        return Publisher(pump, drain_timeout)

    def subscribe(
        self,
        *topics: str,
        start: StartAt | None = None,
        latest: bool = False,
        on_loss: OnLoss | None = None,
    ) -> Subscription:
        """Updates of some topics; "orders.*" is one level, "orders.>" all below.

        `latest`: when this reader is slow, keep only the newest of each topic. `on_loss` is
        called when retention took records before they were read; without it that is an error.
        """
        return streams.subscription(
            self._setting(), topics, self.client_id, start=start, latest=latest, on_loss=on_loss
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
    ) -> LogStream:
        """Log lines of some services (patterns allowed, none: all) at or above a level."""
        return streams.log_stream(
            self._setting(),
            [name for name in (service, *more_services) if name],
            level=level,
            lines=lines,
            follow=follow,
            start=start,
            latest=latest,
            on_loss=on_loss,
        )

    def log_writer(
        self,
        service: str,
        *,
        buffer: int = 10_000,
        on_drop: OnDrop | None = None,
        drain_timeout: float | None = 30.0,
        producer_id: str = "",
    ) -> LogWriter:
        """A pipeline for one service's log lines.

        `producer_id` is for a writer that counts its own requests, see `LogWriter.send_request`.
        """
        outbox = Outbox(producer_id or self._producer(), records=buffer)
        pump = self._pump("log writer", outbox, on_drop)
        return LogWriter(pump, drain_timeout, service)

    # ---- jobs ----

    def watch_job(
        self,
        job_id: str,
        *,
        wait: float = 0.0,
        start: StartAt | None = None,
        on_loss: OnLoss | None = None,
    ) -> JobWatch:
        """The state of a job, then every change; it ends after the first terminal status.

        Raises NotFoundError for an unknown job after `wait` seconds.
        """
        return streams.job_watch(self._setting(), job_id, wait=wait, start=start, on_loss=on_loss)

    def job_events(
        self, *jobs: str, start: StartAt | None = None, on_loss: OnLoss | None = None
    ) -> JobEvents:
        """Every change of some jobs; "*" stands for any characters, and none means all of them.

        Without a start the present states of jobs that have not ended come first.
        """
        return streams.job_events(self._setting(), jobs, start=start, on_loss=on_loss)

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
    ) -> JobHandle:
        """A job of our own that others can watch.

        An id that has had its run gets the next free number ("import", "import-2"): the handle's
        `id` says which. AlreadyExistsError means that the job is still running. A server that is
        away raises ConnectError on entering; with `required=False` the job runs all the same and
        is reported once the server is there.
        """
        outbox = Outbox(self._producer(), records=buffer)
        pump = self._pump(f"job {job_id}" if job_id else "job", outbox, None)

        async def create(report: JobReport) -> None:
            try:
                await self._create_job(report)
            except ConnectError:
                if required:
                    raise
                await pump.put_wait(report, 256)

        handle = JobHandle(
            pump,
            job_id,
            total=total,
            service=service,
            step=step,
            heartbeat=heartbeat,
            create=create,
            drain=drain_timeout,
        )
        pump.on_reply = handle.on_reply
        self._own(pump, handle.close)
        return handle

    async def jobs(
        self, *, statuses: Sequence[str] = (), since: datetime | None = None, limit: int = 100
    ) -> list[JobProgress]:
        """The jobs that changed last, newest first; as many requests as that takes."""
        request = ListJobsRequest(statuses=list(statuses), limit=limit)
        if since is not None:
            request.since = since
        found: list[JobProgress] = []
        while True:
            reply = await self._unary(_PRODUCER + "ListJobs", request, ListJobsReply)
            found += reply.jobs
            if not reply.next_page_token or len(found) >= limit:
                return found
            request.page_token = reply.next_page_token
            request.limit = limit - len(found)

    async def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        """Ask a job's worker to stop; a job that nobody runs is cancelled at once."""
        request = CancelJobRequest(job_id=job_id, reason=reason)
        return await self._unary(_PRODUCER + "CancelJob", request, JobProgress)

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
    ) -> Query:
        """The result of one read-only statement; see Query.

        `batch` is the rows of a message; 0 means 100, in Arrow 8192.
        """
        request = make_request(
            sql,
            parameters,
            database=database,
            batch=batch,
            columns=columns,
            timeout=timeout,
            format=format,
        )
        return Query(
            self._channel,
            request,
            self._reconnect(),
            metadata=self._metadata,
            timeout=timeout,
            pulse=self._pulse,
        )

    async def tables(self, database: str = "") -> list[Table]:
        """The tables and views that can be queried."""
        request = ListTablesRequest(database=database)
        found: list[Table] = []
        while True:
            reply = await self._unary(_ADMIN + "ListTables", request, ListTablesReply)
            found += reply.tables
            request.page_token = reply.next_page_token
            if not request.page_token:
                return found

    async def describe(self, table: str, database: str = "") -> TableSchema:
        """One table's columns. Raises NotFoundError."""
        request = DescribeTableRequest(table=table, database=database)
        found = await self._unary(_ADMIN + "DescribeTable", request, TableSchema)
        while found.next_page_token:
            request.page_token = found.next_page_token
            page = await self._unary(_ADMIN + "DescribeTable", request, TableSchema)
            found.columns += page.columns
            found.next_page_token = page.next_page_token
        return found

    # ---- the server ----

    async def status(self) -> ServerStatus:
        """What the server says about itself."""
        return await self._unary(_ADMIN + "GetStatus", StatusRequest(), ServerStatus)

    async def calls(self) -> list[CallInfo]:
        """The calls that run on the server, the oldest first. For administrators."""
        found: list[CallInfo] = []
        request = ListCallsRequest()
        while True:
            reply = await self._unary(_ADMIN + "ListCalls", request, ListCallsReply)
            found += reply.calls
            if not reply.next_page_token:
                return found
            request = ListCallsRequest(page_token=reply.next_page_token)

    async def kick(self, call_id: int, reason: str = "") -> CallInfo:
        """End a call, whose client is told not to come back. For administrators; NotFoundError."""
        request = KickCallRequest(id=call_id, reason=reason)
        return await self._unary(_ADMIN + "KickCall", request, CallInfo)

    async def backup(self, path: str | os.PathLike[str]) -> int:
        """Save all that the server stores, as of now, for `streamkit restore`; return its bytes.

        For administrators. The file is whole, or what it was before.
        """
        call = self._channel.stream(
            _ADMIN + "Backup",
            BackupRequest,
            BackupChunk,
            request=BackupRequest(),
            metadata=self._metadata,
        )
        return await save_backup(call, path)

    async def replay(self, requests: Sequence[WriteRequest]) -> list[WriteReply]:
        """Store what others have produced: each request has its producer and number, by which the
        server knows one that it has stored already (within a day).

        Not repeated by itself: a lost connection and the first refusal are raised, and all of it
        may be sent again.
        """
        call = self._channel.stream(
            _PRODUCER + "Write", WriteRequest, WriteReply, metadata=self._metadata
        )
        return await replay(call, requests)

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        """Let the server remove what it need not keep any more, now instead of little by little;
        or, with `dry_run`, only say what. For administrators."""
        request = PruneRequest(dry_run=dry_run)
        return (await self._unary(_ADMIN + "Prune", request, PruneReply)).pruned

    async def ping(self) -> float:
        """Seconds that one small call takes there and back."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        check = HealthCheckRequest()
        await self._unary("/grpc.health.v1.Health/Check", check, HealthCheckResponse)
        return loop.time() - started

    # ---- inside ----

    def _publishes(self) -> Together:
        """Those of this client on the loop that runs."""
        assert self._channel is not None  # it is of the loop that runs, or the client is refused
        loop = asyncio.get_running_loop()
        if self._together is None or self._together.loop is not loop:
            self._together = Together(self.publish_many, loop)
            self._closers.add(self._together.close)
        return self._together

    def _setting(self) -> streams.Setting:
        return streams.Setting(
            self._channel, self._reconnect(), self._idle_timeout, self._metadata, self._pulse
        )

    async def _create_job(self, report: JobReport) -> None:
        """Create a job; one that has ended is run again under the next number."""
        name = report.job_id
        for number in itertools.count(1):
            report.producer = self._next_request()
            try:
                await self._unary(_PRODUCER + "CreateJob", report, JobProgress)
                return
            except AlreadyExistsError as error:
                if number == 1:
                    if not await self._has_ended(name):
                        error.hint = error.hint or "it is still running; watch it, or wait"
                        raise
                    # The later runs are most likely among the jobs that changed last.
                    known = [job.job_id for job in await self.jobs(limit=1_000)]
                    pattern = re.compile(re.escape(name) + r"-([1-9]\d{0,8})")
                    found = [int(m[1]) for m in map(pattern.fullmatch, known) if m is not None]
                    latest = max(found, default=1)
                report.job_id = f"{name}-{latest + number}"

    async def _has_ended(self, job_id: str) -> bool:
        async with self.watch_job(job_id) as states:
            async for state in states:
                return state.status in TERMINAL
        return True

    def _producer(self) -> str:
        """A producer id of this client; each counts its own requests."""
        self._producers += 1
        return f"{self.client_id}-{self._producers}"

    def _next_request(self) -> Producer:
        self._requests += 1
        return Producer(id=self.client_id, sequence=self._requests)

    def _pump(self, name: str, outbox: Outbox, on_drop: OnDrop | None) -> Pump:
        pump = Pump(
            self._channel,
            outbox,
            self._reconnect(patient=True),
            name=name,
            answer_timeout=self._idle_timeout,
            metadata=self._metadata,
            on_drop=on_drop,
        )

        self._own(pump, lambda: pump.close(0))
        return pump

    def _own(self, pump: Pump, close: Closer) -> None:
        """Have `close` called when the client is closed, unless the pump is closed before."""
        if pump.on_closed is not None:
            pump.on_closed()  # the former way to close it
        self._closers.add(close)
        pump.on_closed = lambda: self._closers.discard(close)
