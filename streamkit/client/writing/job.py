"""JobHandle: a block of work that others can watch."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from streamkit import tracing
from streamkit.client.writing.pump import Pump
from streamkit.client.writing.text import clean, clean_map
from streamkit.errors import ConnectError, InvalidArgumentError, StreamkitError
from streamkit.generated.streamservice import JobReport, LogEntry, WriteReply
from streamkit.transport.grpc.deadline import duration

__all__ = ["JobHandle", "new_job_id"]

_INTERVAL = 0.2
"""Seconds between two reports of `advance`."""

_DRAIN = 10.0
"""Seconds that the end of the block waits for the last reports to arrive."""


def new_job_id() -> str:
    return f"job-{uuid4().hex[:12]}"


class JobHandle:
    """One running job. Get it from `client.job()`; use it as an async context manager.

    Entering creates the job; leaving it finishes the job, unless `finish` was called: completed,
    or failed with the error that left the block, or cancelled if that was asked for. Reports
    survive an outage of the server like everything written by a client; while they wait, a newer
    `advance` takes the place of an older one.

    `cancel_requested` is set when somebody asked for the job to be cancelled: the work should end.
    """

    def __init__(
        self,
        pump: Pump,
        job_id: str,
        *,
        total: int = 0,
        service: str = "",
        step: str = "",
        heartbeat: float = 15.0,
        create: Any = None,
        drain: float = _DRAIN,
    ) -> None:
        if total < 0:
            raise InvalidArgumentError(f"total must not be negative, not {total}")
        if heartbeat <= 0:
            raise InvalidArgumentError(f"heartbeat must be positive, not {heartbeat}")
        self.id: str = job_id or new_job_id()
        """Once the block is entered: a job that has had its run gets the next number."""
        self.total: int = total
        """Units to do, 0 if nobody knows."""
        self.service: str = service or self.id
        """Of the job's own log lines."""
        self.completed: int = 0
        """Units done."""
        self.cancel_requested = asyncio.Event()
        self._pump = pump
        self._step = step
        self._heartbeat = heartbeat
        self._create = create
        self._drain = drain
        self._dirty = False
        self._finished = False
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        first = JobReport(
            job_id=self.id,
            status="running",
            service=self.service,
            heartbeat=duration(self._heartbeat, "heartbeat"),
            traceparent=_origin(),
        )
        if self._step:
            first.current_step = clean(self._step)
        if self.total:
            first.total = self.total
            first.completed = 0
        if self._create is not None:
            await self._create(first)
            self.id = first.job_id
        else:
            await self._pump.put_wait(first, 256)
        self._ticker = asyncio.create_task(self._tick(), name=f"streamkit job {self.id}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._finished:
                pass
            elif exc_type is None:
                await self.finish("cancelled" if self.cancel_requested.is_set() else "completed")
            elif issubclass(exc_type, Exception):
                await self.finish_quietly("failed", f"{exc_type.__name__}: {exc}")
            else:
                # Cancelled or interrupted: say so, without holding anybody up.
                self._drain = min(self._drain, 0.5)
                await self.finish_quietly("cancelled", exc_type.__name__)
        finally:
            await self.close()

    def on_reply(self, reply: WriteReply) -> None:
        """Called by the pump for every acknowledged request."""
        if self.id in reply.cancel_requested:
            self.cancel_requested.set()

    async def update(
        self,
        percentage: int | None = None,
        step: str | None = None,
        completed: int | None = None,
        total: int | None = None,
    ) -> None:
        """Report progress. Every call is one report; waits only while the buffer is full."""
        if percentage is not None and not 0 <= percentage <= 100:
            raise InvalidArgumentError(f"percentage must be 0 to 100, not {percentage}")
        if total is not None:
            self.total = total
        if completed is not None:
            self.completed = completed
        if step is not None:
            self._step = step
        self._dirty = False
        report = self._report()
        if percentage is not None:
            report.percentage = percentage
        await self._pump.put_wait(report, 256)

    async def advance(self, units: int = 1, step: str | None = None) -> None:
        """Note units done. Reported a few times a second, however often it is called."""
        self.note(units, step)

    def note(self, units: int = 1, step: str | None = None) -> None:
        """As `advance`; one thread at a time may call it, not only the loop's."""
        self.completed += units
        if step is not None:
            self._step = step
        self._dirty = True

    async def log(self, message: str, level: str = "info", **fields: object) -> None:
        """Write a line to the job's log; waits only while the buffer is full."""
        entry = LogEntry(
            timestamp=datetime.now(UTC),
            level=level,
            message=clean(message),
            service=self.service,
            fields=clean_map({"job_id": self.id, **tracing.carrier(), **fields}),
        )
        await self._pump.put_wait(entry, len(message) + 128)

    async def finish(
        self, status: str = "completed", error: str = "", exit_code: int | None = None
    ) -> None:
        """End the job and wait until the end is stored. A second call does nothing.

        Raises what kept the reports from arriving within ten seconds.
        """
        if not self._finished:
            self._finished = True
            last = self._report()
            last.status = status
            last.error = clean(error)
            last.exit_code = exit_code
            if status == "completed":
                last.percentage = 100
            await self._pump.put_wait(last, 256 + len(error))
        try:
            async with asyncio.timeout(self._drain):
                await self._pump.settled()
        except TimeoutError:
            raise ConnectError(f"the end of job {self.id} could not be reported") from None

    async def finish_quietly(self, status: str = "completed", error: str = "") -> None:
        """As `finish`, but a report that does not arrive is only counted and told as an event."""
        with suppress(StreamkitError):  # closing the pump counts and tells what was not delivered
            await self.finish(status, error)

    async def close(self) -> None:
        """Stop reporting, at once and without an end: the server will count the job as lost."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
        await self._pump.close(0)

    def _report(self) -> JobReport:
        report = JobReport(job_id=self.id, service=self.service)
        report.heartbeat = duration(self._heartbeat, "heartbeat")
        report.traceparent = _origin()
        if self._step:
            report.current_step = clean(self._step)
        if self.completed or self.total:
            report.completed = self.completed
        if self.total:
            report.total = self.total
            report.percentage = max(0, min(100, self.completed * 100 // self.total))
        return report

    async def _tick(self) -> None:
        """Report what `advance` noted, and in any case often enough to be known as alive."""
        loop = asyncio.get_running_loop()
        interval = min(_INTERVAL, self._heartbeat / 3)
        alive = loop.time()
        while not self._finished and not self._pump.ended:
            await asyncio.sleep(interval)
            quiet = loop.time() - alive
            due = self._dirty or quiet >= self._heartbeat / 3
            # While the server is away one report waits, not one for every tick.
            if due and not self._finished and not self._pump.outbox.waiting:
                self._dirty = False
                alive = loop.time()
                self._pump.offer(self._report(), 256)


def _origin() -> str:
    """The trace context that a report made here and now comes from."""
    return tracing.carrier().get("traceparent", "")
