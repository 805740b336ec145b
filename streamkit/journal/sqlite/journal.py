"""The journal on an SQLite file: the embedded default."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import JobProgress, JobReport, LogEntry, Update
from streamkit.journal.base import (
    Appended,
    Bounds,
    Clock,
    JournalStatus,
    ProducerId,
    Record,
    Selector,
    Stream,
)
from streamkit.journal.live.engine import EngineJournal
from streamkit.journal.live.reader import Page
from streamkit.journal.records.items import utc
from streamkit.journal.sqlite.lock import StoreLock
from streamkit.journal.sqlite.reads import Reads
from streamkit.journal.sqlite.store import Append, Ask, Cancel, Committed, Report, Sweep
from streamkit.journal.sqlite.writer import Writer

__all__ = ["SqliteJournal", "path_of"]


class SqliteJournal(EngineJournal):
    """One file, one thread that writes, a few that read. Made by `open`."""

    path: str
    """The file, absolute; tools may read it while the journal is open."""

    def __init__(
        self,
        path: str,
        options: JournalOptions,
        clock: Clock,
    ) -> None:
        super().__init__(options, clock)
        self.path = os.path.abspath(path)
        self._lock = StoreLock(path)
        self._reads = Reads(self.path)
        self._writer = Writer(path, options, clock(), self._deliver)
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str,
        options: JournalOptions,
        clock: Clock,
    ) -> SqliteJournal:
        """Open or create the store. Raises StoreError, in one line."""
        journal = cls(path, options, clock)
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

    async def append_logs(
        self, entries: Sequence[LogEntry], producer: ProducerId | None = None
    ) -> Appended:
        return await self._append(Stream.LOGS, entries, producer)

    async def _append(
        self, stream: Stream, messages: Sequence[Any], producer: ProducerId | None
    ) -> Appended:
        request = Append(self._clock(), stream, messages, producer)
        appended: Appended = await self._writer.write(request)
        return appended

    async def report_jobs(
        self, reports: Sequence[JobReport], *, create: bool = False
    ) -> list[JobProgress]:
        states: list[JobProgress] = await self._writer.write(Report(self._clock(), reports, create))
        return states

    async def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        state: JobProgress = await self._writer.write(Cancel(self._clock(), job_id, reason))
        return state

    async def job(self, job_id: str) -> JobProgress | None:
        return await self._reads.run(self._reads.job, job_id)

    async def jobs(
        self,
        *,
        statuses: Sequence[str] = (),
        since: datetime | None = None,
        limit: int = 100,
        ids: Sequence[str] = (),
    ) -> list[JobProgress]:
        since = None if since is None else utc(since)
        return await self._reads.run(self._reads.jobs, tuple(statuses), since, limit, tuple(ids))

    async def status(self) -> JournalStatus:
        return JournalStatus(self.path, self._options.durability, _bytes_of(self.path))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._stop_sweeping()
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

    async def _sweep(self, now: datetime) -> None:
        if self._closed:
            return
        await self._writer.write(Sweep(now))
        while await self._writer.write(Ask(now)):  # one step of retention follows each commit
            pass

    async def _page(self, selector: Selector, after: int, end: int) -> Page[Record]:
        return await self._reads.run(self._reads.page, selector, after, end)

    async def _first_of_last(self, selector: Selector, count: int, newest: int) -> int | None:
        return await self._reads.run(self._reads.first_of_last, selector, count, newest)

    async def _place_since(self, stream: Stream, since: datetime, newest: int) -> int:
        return await self._reads.run(self._reads.place_since, stream, utc(since), newest)


def _bytes_of(path: str) -> int:
    parts = (path, f"{path}-wal")
    return sum(os.path.getsize(part) for part in parts if os.path.exists(part))


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
