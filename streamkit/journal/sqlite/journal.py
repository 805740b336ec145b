"""The journal on an SQLite file: the embedded default."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError, StoreError
from streamkit.generated.streamservice import JobProgress, JobReport, LogEntry, Update
from streamkit.journal.base import (
    Appended,
    Bounds,
    Clock,
    ProducerId,
    Stream,
    Tally,
)
from streamkit.journal.records.items import Row
from streamkit.journal.records.weights import weight_of
from streamkit.journal.rules.silence import Steady
from streamkit.journal.sqlite.filed import FileJournal
from streamkit.journal.sqlite.lock import StoreLock
from streamkit.journal.sqlite.requests import (
    Append,
    AppendRun,
    Ask,
    Cancel,
    Committed,
    Report,
    Request,
    Sweep,
)
from streamkit.journal.sqlite.store import Store
from streamkit.journal.sqlite.writer import Writer

__all__ = ["SqliteJournal", "path_of"]


class SqliteJournal(FileJournal):
    """One file, one thread that writes, a few that read. Made by `open`."""

    _store: Callable[[str, JournalOptions], Store] = Store
    """What the thread that writes opens."""
    on_committed: Callable[[list[Committed], dict[Stream, int]], None] | None = None
    """Told on the loop of every commit, in order, with the oldest sequence of each stream."""

    def __init__(
        self,
        path: str,
        options: JournalOptions,
        clock: Clock,
        steady: Steady,
    ) -> None:
        self._lock = StoreLock(path)
        super().__init__(self._lock.store, options, clock, steady)
        self._writer = Writer(self.path, options, self._deliver, self._pinned, self._store)
        self._background.append(self._recurring("watching the store", self._watch))

    @classmethod
    async def open(
        cls,
        path: str,
        options: JournalOptions,
        clock: Clock,
        steady: Steady,
    ) -> SqliteJournal:
        """Open or create the store. Raises StoreError, in one line."""
        journal = cls(path, options, clock, steady)
        try:
            epoch, oldest, following = await journal._writer.open()
        except BaseException:
            await journal._release()
            raise
        bounds = {stream: Bounds(oldest[stream], following[stream] - 1) for stream in Stream}
        journal._start(epoch, bounds)
        return journal

    async def append_updates(
        self, updates: Sequence[Update], producer: ProducerId | None = None
    ) -> Appended:
        return await self._append(Stream.UPDATES, updates, producer)

    def append_runs_soon(
        self, batches: Sequence[tuple[Sequence[Update], ProducerId | None]]
    ) -> asyncio.Future[list[tuple[int, int] | Exception]] | None:
        request = AppendRun(
            now=self._clock(),
            records=sum([len(messages) for messages, _ in batches]),
            size=sum([weight_of(messages) for messages, _ in batches]),
            stream=Stream.UPDATES,
            batches=batches,
        )
        return self._write_soon(request)

    def rows_request(
        self,
        stream: Stream,
        batches: Sequence[tuple[Sequence[Row], ProducerId | None]],
        size: int,
    ) -> AppendRun:
        """Records that were made elsewhere, to be stored by `submit`; `size` is about what they
        hold."""
        return AppendRun(
            now=self._clock(),
            records=sum([len(rows) for rows, _ in batches]),
            size=size,
            stream=stream,
            batches=batches,
            made=True,
        )

    async def submit(self, request: AppendRun) -> list[tuple[int, int] | Exception]:
        """Store, and return what came of each: first sequence and count, or the error."""
        found: list[tuple[int, int] | Exception] = await self._write(request)
        return found

    def submit_soon(
        self, request: AppendRun
    ) -> asyncio.Future[list[tuple[int, int] | Exception]] | None:
        """The same, begun at once; None where there is something to wait for before."""
        return self._write_soon(request)

    async def append_logs(
        self, entries: Sequence[LogEntry], producer: ProducerId | None = None
    ) -> Appended:
        return await self._append(Stream.LOGS, entries, producer)

    async def _append(
        self, stream: Stream, messages: Sequence[Any], producer: ProducerId | None
    ) -> Appended:
        request = Append(
            now=self._clock(),
            records=len(messages),
            size=weight_of(messages),
            stream=stream,
            messages=messages,
            producer=producer,
        )
        appended: Appended = await self._write(request)
        return appended

    async def _write(self, request: Request) -> Any:
        """Store what somebody asked for and return its result, or raise its error."""
        return await self._writer.write(request)

    def _write_soon(self, request: Request) -> asyncio.Future[Any] | None:
        return self._writer.write_soon(request)

    async def report_jobs(
        self, reports: Sequence[JobReport], *, create: bool = False
    ) -> list[JobProgress]:
        request = Report(
            now=self._clock(),
            records=len(reports),
            size=weight_of(reports),
            reports=reports,
            create=create,
            seen=self._attendance.seen(),
        )
        states: list[JobProgress] = await self._write(request)
        return states

    async def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        request = Cancel(now=self._clock(), size=len(reason), job_id=job_id, reason=reason)
        state: JobProgress = await self._write(request)
        return state

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._stop_background()
        await self._writer.drain()  # what it still stores is delivered before the readers end
        self._end_readers()
        await self._release()

    async def _release(self) -> None:
        """Readers first: the last connection to close is the writer's, which checkpoints."""
        self._reads.close()
        await self._writer.close()
        self._lock.release()

    def _deliver(self, committed: list[Committed], oldest: dict[Stream, int]) -> None:
        self._oldest.update(oldest)
        for done in committed:
            for stream, items in done.items.items():
                self._rings[stream].push(items)
        if self.on_committed is not None:
            self.on_committed(committed, oldest)

    async def _sweep(self, now: datetime, seen: float) -> None:
        if self._closed:
            return
        try:
            kept = self._options.retention
            while await self._writer.write(
                Sweep(now=now, seen=seen, aged=self._believed(), retention=kept)
            ):
                pass
            while await self._writer.write(Ask(now=now)):  # a step of retention follows each commit
                pass
        except StoreError:
            if self._writer.refusal is None:  # else it is told already
                raise

    @property
    def tally(self) -> Tally:
        writer = self._writer
        return super().tally._replace(
            commits=writer.commits, removed=writer.removed, duplicates=writer.repeats()
        )

    async def _watch(self) -> None:
        """Whether the store is still the file that was opened. While it is not, nothing is stored:
        it would be acknowledged and lost."""
        fault = self._lock.fault()
        self._writer.refusal = StoreError(fault, hint="stop the server") if fault else None
        if self._writer.refusal is not None:
            raise self._writer.refusal

    def _pinned(self) -> None:
        if self.on_pinned is not None:
            self.on_pinned()


def path_of(url: str) -> str:
    """The file that a path or "sqlite:///path" names. Raises InvalidArgumentError."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    if scheme != "sqlite" or not rest.startswith("/"):
        raise InvalidArgumentError(
            f"{url!r} names no store",
            hint="give a path, sqlite:///PATH or :memory:",
        )
    return rest[1:]
