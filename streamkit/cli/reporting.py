"""What the server is told of a running command; never in the command's way.

While the server is reachable its pace is the command's: lines wait for room. Once it is away lines
wait in a bounded buffer, what does not fit is dropped and counted, and the person is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from streamkit.cli.exits import reason
from streamkit.cli.levels import detect_level
from streamkit.cli.session import Session
from streamkit.errors import AlreadyExistsError, ConnectError, StreamkitError

if TYPE_CHECKING:
    from streamkit.client import AsyncClient, ClientEvent, JobHandle, LogWriter

__all__ = ["Reporter"]

BUFFER = 20_000
"""Lines that wait for a server that is away."""
PATIENCE = 5.0
"""Seconds without room after which a server that seemed to be there counts as away."""
LAST_WORDS = 10.0
"""Seconds for what is left at the end, if the server is there."""
LAST_TRY = 0.5
"""The same if it is not."""
LAST_LOOK = 2.0
"""Seconds for finding out which it is."""


class _Line(NamedTuple):
    """The arguments of a log writer."""

    message: str
    level: str
    fields: dict[str, str]
    timestamp: datetime


class Reporter:
    """One command's job and log. `take`, `finish` and `run` are called on one event loop."""

    def __init__(
        self, session: Session, job_id: str, service: str, progress: re.Pattern[str] | None
    ) -> None:
        self.cancel_requested = asyncio.Event()
        self._session = session
        self._job_id = job_id
        self._service = service
        self._progress = progress
        self._writer: LogWriter | None = None
        self._job: JobHandle | None = None
        self._known = asyncio.Event()
        self._ready = asyncio.Event()
        self._job_known = asyncio.Event()
        self._early: list[_Line] = []
        self._dropped_early = 0
        self._latest: list[str] = []
        self._online = False
        self._warned = False
        session.on_event = self._on_event

    async def run(self, command: str) -> None:
        """Report until cancelled. Ends only by cancellation: no error of ours matters."""
        session = self._session
        async with session.client(check=False) as client:
            await self._look_for_server(client)
            writer = client.log_writer(self._service, buffer=BUFFER)
            await writer.__aenter__()
            try:
                while self._early:
                    early, self._early = self._early, []
                    await self._put(writer, early)
                self._writer = writer
                self._ready.set()
                await self._open_job(client, command)
                await asyncio.Event().wait()
            finally:
                await self._close(writer)

    async def take(self, name: str, lines: list[str], now: datetime) -> None:
        """Take the next lines of "stdout" or "stderr". Waits only for a server that is there."""
        entries = [_Line(line, detect_level(line), {"stream": name}, now) for line in lines]
        self._latest = lines or self._latest
        if self._writer is None:
            self._early += entries
            if len(self._early) < BUFFER:
                return
            # A loud command right at the start: it is soon known whether the server is there.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._ready.wait()
            self._dropped_early += len(self._early[BUFFER:])
            del self._early[BUFFER:]
            return
        await self._put(self._writer, entries)
        if self._job is not None:
            await self._show_step(self._job, lines)

    async def _put(self, writer: LogWriter, lines: list[_Line]) -> None:
        taken = 0
        if self._online:
            try:
                async with asyncio.timeout(PATIENCE):
                    for line in lines:
                        await writer.send(*line)
                        taken += 1
            except (TimeoutError, StreamkitError):
                self._online = False
        for line in lines[taken:]:
            writer.write(*line)

    async def finish(self, code: int) -> None:
        """The command has ended: deliver what is left, the output before the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK):
                await self._known.wait()
        if not self._online:
            await self._look_again()
        try:
            async with asyncio.timeout(LAST_WORDS if self._online else LAST_TRY):
                await self._ready.wait()
                if self._writer is not None:
                    await self._writer.flush()
                await self._job_known.wait()
                if self._job is not None:
                    await self._finish_job(self._job, code)
        except (TimeoutError, StreamkitError):
            if not self._warned:
                self._session.note(f"{self._session.server} was not told of the end of the job")
        missing = len(self._early) + self._dropped_early
        if self._writer is not None:
            missing += self._writer.buffered + self._writer.dropped
        if missing:
            self._session.note(f"{missing} lines of output did not reach {self._session.server}")

    async def _finish_job(self, job: JobHandle, code: int) -> None:
        if code == 0:
            await job.finish("completed", exit_code=0)
            return
        cancelled = self.cancel_requested.is_set() and code > 128
        why = f"ended by signal {code - 128}" if code > 128 else f"exit code {code}"
        await job.finish("cancelled" if cancelled else "failed", why, exit_code=code)

    async def _show_step(self, job: JobHandle, lines: list[str]) -> None:
        if self._progress is not None:
            for line in reversed(lines):
                if match := self._progress.search(line):
                    numbers = [int(float(group)) for group in match.groups()]
                    job.completed, job.total = (*numbers, 100)[:2]
                    break
        shown = next((line for line in reversed(lines) if line.strip()), "")
        if shown:
            await job.advance(0, step=shown.strip()[:120])

    async def _look_for_server(self, client: AsyncClient) -> None:
        try:
            await client.ping()
            self._online = True
        except StreamkitError as error:
            self._warn(reason(error))
        self._known.set()

    async def _look_again(self) -> None:
        """The server may be back, and our own next attempt still some way off."""
        with contextlib.suppress(TimeoutError, StreamkitError):
            async with asyncio.timeout(LAST_LOOK), self._session.client():
                self._online = True

    async def _open_job(self, client: AsyncClient, command: str) -> None:
        """Create the job, as often as it takes; another id if this one has had its run."""
        job_id, attempt = self._job_id, 1
        while True:
            job = client.job(job_id, service=self._service, step=command[:120], required=False)
            try:
                await job.__aenter__()
                break
            except AlreadyExistsError:
                attempt += 1
                job_id = f"{self._job_id}-{attempt}"
        if job.id != self._job_id:
            self._session.note(f"job {self._job_id} has had its run; this one is {job.id}")
        self._job = job
        await self._show_step(job, self._latest)  # said before there was a job
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
