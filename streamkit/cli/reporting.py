"""What the server is told of a running command; never in the command's way.

While the server is reachable its pace is the command's: lines wait for room. Once it is away lines
wait in a few requests and then in a bounded file on disk; what does not fit is dropped and counted,
and the person is told once. What is left at the end is kept for a later run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from streamkit.cli.exits import UsageError, reason
from streamkit.cli.input.levels import detect_level
from streamkit.cli.session import Session
from streamkit.client.writing.spool import Spool, deliver, records_of, request_of
from streamkit.errors import AlreadyExistsError, ConnectError, StreamkitError
from streamkit.generated.streamservice import JobReport, LogEntry, WriteRequest

if TYPE_CHECKING:
    from streamkit.client import AsyncClient, ClientEvent, JobHandle, LogWriter

__all__ = ["Reporter", "deliver_kept"]

REQUEST_LINES = 500
PATIENCE = 5.0
"""Seconds without room after which a server that seemed to be there counts as away."""
LAST_WORDS = 10.0
"""Seconds for what is left at the end, if the server is there."""
LAST_TRY = 0.5
"""The same if it is not."""
LAST_LOOK = 2.0
"""Seconds for finding out which it is."""
HEARTBEAT = timedelta(seconds=15)
_LARGEST = 2**53
_BETWEEN_DIGITS = str.maketrans("", "", ", _'\u2019\u00a0\u202f")


class Reporter:
    """One command's job and log. `take`, `finish` and `run` are called on one event loop."""

    def __init__(
        self,
        session: Session,
        job_id: str,
        service: str,
        progress: re.Pattern[str] | None,
        spool: Spool,
        *,
        total: int = 0,
    ) -> None:
        self.cancel_requested = asyncio.Event()
        self._session = session
        self._job_id = job_id
        self._service = service
        self._progress = progress
        self._total = total
        self._spool = spool
        self._spooled = asyncio.Event()
        self._producer = uuid4().hex
        self._number = 0
        self._writer: LogWriter | None = None
        self._job: JobHandle | None = None
        self._known = asyncio.Event()
        self._ready = asyncio.Event()
        self._job_known = asyncio.Event()
        self._missing = 0
        """Lines that found no room."""
        self._step = ""
        self._counted: list[int] = []
        """What the last line with numbers said: how much is done and, perhaps, of how much."""
        self._online = False
        self._warned = False
        session.on_event = self._on_event

    async def run(self, command: str) -> None:
        """Report until cancelled. Ends only by cancellation: no error of ours matters."""
        try:
            await self._run(command)
        except (StreamkitError, OSError, UsageError) as error:
            self._warn(reason(error))
        finally:
            self._ready.set()
            self._known.set()
        await asyncio.Event().wait()

    async def _run(self, command: str) -> None:
        async with self._session.client(check=False) as client:
            writer = client.log_writer(self._service, producer_id=self._producer)
            self._writer = writer
            self._ready.set()
            moving = asyncio.create_task(self._move(writer))
            delivering = None
            try:
                await self._look_for_server(client)
                if self._online:
                    delivering = asyncio.create_task(deliver_kept(self._session, client))
                await self._open_job(client, command)
                await asyncio.Event().wait()
            finally:
                tasks = [moving] if delivering is None else [moving, delivering]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._close(writer)

    async def take(self, name: str, lines: list[str], now: datetime) -> None:
        """Take the next lines of "stdout" or "stderr". Waits only for a server that is there."""
        news = self._look_at(lines)
        if self._writer is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._ready.wait()
        fields = {"stream": name} if name else {}
        for start in range(0, len(lines), REQUEST_LINES):
            entries = [
                LogEntry(
                    timestamp=now,
                    level=detect_level(line),
                    message=line,
                    service=self._service,
                    fields=fields,
                )
                for line in lines[start : start + REQUEST_LINES]
            ]
            self._number += 1
            await self._put(request_of(self._producer, self._number, entries))
        if news and self._job is not None:
            await self._show_step(self._job)

    async def _put(self, request: WriteRequest) -> None:
        if not self._spool.lines and await self._send(request):
            return
        if self._spool.put(request):
            self._spooled.set()
        else:
            self._missing += len(request.logs)

    async def _send(self, request: WriteRequest) -> bool:
        """Hand a request to the writer, if there is one that takes it."""
        writer, number = self._writer, request.producer.sequence
        if writer is None or writer.pump.ended:
            return False
        records = records_of(request)
        if writer.pump.try_request(records, number):
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                # A loud command right at the start: it is soon known whether the server is there.
                await self._known.wait()
                if self._online:
                    await writer.pump.put_request(records, number)
                    return True
        except (TimeoutError, StreamkitError):
            self._online = False
        return False

    async def _move(self, writer: LogWriter) -> None:
        """What waits on disk goes first once the server is back."""
        while True:
            await self._spooled.wait()
            while (request := self._spool.first()) is not None:
                await writer.pump.put_request(records_of(request), request.producer.sequence)
                self._spool.take()
            self._spooled.clear()

    async def finish(self, code: int, why: str = "") -> None:
        """The command has ended: deliver what is left, the output before the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK):
                await self._known.wait()
        if not self._online:
            await self._look_again()
        status, why = self._outcome(code, why)
        told = False
        try:
            async with asyncio.timeout(LAST_WORDS if self._online else LAST_TRY):
                await self._ready.wait()
                if self._writer is not None:
                    while self._spool.lines and not self._writer.pump.ended:
                        await self._writer.pump.room()
                    await self._writer.flush()
                await self._job_known.wait()
                if self._job is not None:
                    await self._job.finish(status, why, exit_code=code)
                    told = True
        except (TimeoutError, StreamkitError):
            pass
        await self._keep(status, why, code, told=told)

    async def _keep(self, status: str, why: str, code: int, *, told: bool) -> None:
        """Leave what did not arrive for a later run, and tell the person."""
        server, note = self._session.server, self._session.note
        waiting = [] if self._writer is None else self._writer.pump.outbox.unsettled()
        lines = self._spool.lines + sum(len(request.logs) for request in waiting)
        refused = 0 if self._writer is None else self._writer.dropped
        if lines or not told:
            last = [] if told else [self._ending(status, why, code)]
            what = f"{lines} lines of output" if told else f"{lines} lines of output and the end"
            if self._spool.keep(waiting, last):
                note(
                    f"{what} wait in {self._spool.path} for {server}; the next `streamkit run` or "
                    "`streamkit deliver` brings them there"
                )
            else:
                refused += lines
                if not told and not self._warned:
                    note(f"{server} was not told of the end of the job")
        if refused + self._missing:
            note(f"{refused + self._missing} lines of output did not reach {server}")

    def _ending(self, status: str, why: str, code: int) -> WriteRequest:
        """The end of the job, and its beginning if that was not told either."""
        report = JobReport(job_id=self._job_id, service=self._service, status=status, error=why)
        report.exit_code = code
        if status == "completed":
            report.percentage = 100
        reports = [report]
        if self._job is None:
            reports.insert(0, JobReport(job_id=self._job_id, service=self._service))
            reports[0].status = "running"
            reports[0].heartbeat = HEARTBEAT
        self._number += 1
        return request_of(self._producer, self._number, jobs=reports)

    def _outcome(self, code: int, why: str) -> tuple[str, str]:
        if code == 0 and not why:
            return "completed", ""
        cancelled = self.cancel_requested.is_set() and code > 128
        ended = f"ended by signal {code - 128}" if code > 128 else f"exit code {code}"
        return "cancelled" if cancelled else "failed", why or ended

    def _look_at(self, lines: Sequence[str]) -> bool:
        """Note what the lines say of the job, which may not be there yet. False: nothing."""
        if self._progress is not None:
            for line in reversed(lines):
                if (match := self._progress.search(line)) and (found := _numbers(match)):
                    self._counted = found
                    break
        shown = next((line for line in reversed(lines) if line.strip()), "")
        self._step = shown.strip()[:120] or self._step
        return bool(shown)

    async def _show_step(self, job: JobHandle) -> None:
        if self._counted:
            job.completed = self._counted[0]
            job.total = self._counted[1] if len(self._counted) > 1 else self._total or 100
        if self._step:
            await job.advance(0, step=self._step)

    async def _look_for_server(self, client: AsyncClient) -> None:
        try:
            await client.ping()
            self._online = True
        except StreamkitError as error:
            self._warn(reason(error))
        self._known.set()

    async def _look_again(self) -> None:
        """The server may be back, and our own next attempt still some way off."""
        with contextlib.suppress(TimeoutError, StreamkitError):  # it is still away
            async with asyncio.timeout(LAST_LOOK), self._session.client():
                self._online = True

    async def _open_job(self, client: AsyncClient, command: str) -> None:
        """Create the job, as often as it takes; another id if this one has had its run."""
        wanted, attempt = self._job_id, 1
        while True:
            job = client.job(
                self._job_id,
                total=self._total,
                service=self._service,
                step=command[:120],
                heartbeat=HEARTBEAT.total_seconds(),
                required=False,
            )
            try:
                await job.__aenter__()
                break
            except AlreadyExistsError:
                attempt += 1
                self._job_id = f"{wanted}-{attempt}"
        self._job_id = job.id
        if job.id != wanted:
            self._session.note(f"job {wanted} has had its run; this one is {job.id}")
        self._job = job
        await self._show_step(job)  # what was said before there was a job
        self._job_known.set()
        self._watching = asyncio.create_task(self._pass_cancel_on(job))

    async def _pass_cancel_on(self, job: JobHandle) -> None:
        await job.cancel_requested.wait()
        self.cancel_requested.set()

    async def _close(self, writer: LogWriter) -> None:
        """Let go of everything without waiting; `finish` has waited for what could be delivered."""
        if self._job is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            # Not finished means that the server is away: it will find the job lost by itself.
            await self._job.close()
        with contextlib.suppress(ConnectError):  # `finish` told how many lines were left
            await writer.close(0)

    def _on_event(self, event: ClientEvent) -> None:
        if event.kind in ("connected", "resumed"):
            self._online = True
            self._warned = False
        elif event.kind == "lost":
            self._online = False
            self._warn(reason(event.error) if event.error is not None else event.detail)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._session.note(
                f"{self._session.server} does not take reports ({why}); the command goes on"
            )


def _numbers(match: re.Match[str]) -> list[int]:
    """The numbers that the groups matched, 1,000 included; none if one of them is no number."""
    found = []
    for group in match.groups():
        try:
            number = float((group or "").translate(_BETWEEN_DIGITS))
        except ValueError:
            return []
        if not math.isfinite(number) or not 0 <= number <= _LARGEST:
            return []
        found.append(int(number))
    return found


async def deliver_kept(session: Session, client: AsyncClient) -> int:
    """Bring what earlier runs left to the server; return how many files that were."""
    count = 0

    def writer(producer: str) -> LogWriter:
        return client.log_writer("kept", producer_id=producer)

    async with contextlib.aclosing(deliver(writer, session.server, session.note)) as delivered:
        async for lines in delivered:
            count += 1
            session.note(f"{lines} lines that waited on disk are delivered")
    return count
