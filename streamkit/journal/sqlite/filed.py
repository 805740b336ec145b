"""What every journal with a store file shares: reading it, in whichever process it is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from streamkit.config import JournalOptions
from streamkit.generated.streamservice import JobProgress
from streamkit.journal.base import (
    Clock,
    JobPage,
    JournalStatus,
    Pruned,
    Record,
    Selector,
    Stream,
)
from streamkit.journal.live.engine import EngineJournal
from streamkit.journal.live.reader import Page
from streamkit.journal.records.items import utc
from streamkit.journal.rules.silence import Steady
from streamkit.journal.sqlite.copies import copy_of
from streamkit.journal.sqlite.jobs import Asked, job, jobs
from streamkit.journal.sqlite.reads import Reads
from streamkit.journal.sqlite.retention import forecast_all

__all__ = ["FileJournal", "bytes_of"]


class FileJournal(EngineJournal):
    """The reading half over one SQLite file; who derives from it says how it is written."""

    path: str
    """The file, absolute; tools may read it while the journal is open."""

    def __init__(self, path: str, options: JournalOptions, clock: Clock, steady: Steady) -> None:
        super().__init__(options, clock, steady)
        self.path = path
        self._reads = Reads(path)
        self._closed = False

    async def job(self, job_id: str) -> JobProgress | None:
        return await self._reads.run(job, job_id)

    async def jobs(
        self,
        *,
        statuses: Sequence[str] = (),
        since: datetime | None = None,
        limit: int = 100,
        ids: Sequence[str] = (),
        before: int | None = None,
        max_bytes: int = 1 << 62,
    ) -> JobPage:
        asked = Asked(
            statuses=tuple(dict.fromkeys(statuses)),
            since=None if since is None else utc(since),
            ids=tuple(ids),
            before=before,
        )
        return await self._reads.run(jobs, asked, limit, max_bytes)

    async def status(self) -> JournalStatus:
        size = bytes_of(self.path)
        return JournalStatus(self.path, self._options.durability, size, self.faults)

    def count_jobs(self) -> dict[str, int]:
        with closing(sqlite3.connect(f"{Path(self.path).as_uri()}?mode=ro", uri=True)) as opened:
            found = opened.execute("select status, count(*) from jobs group by status").fetchall()
        return dict(found)

    async def copy(self) -> BinaryIO:
        return await copy_of(self.path)

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        now = self._believed()
        found = await self._reads.run(forecast_all, self._options.retention, now)
        if not dry_run:
            await self.sweep()
        return found

    async def _page(self, selector: Selector, after: int, end: int) -> Page[Record]:
        return await self._reads.run(self._reads.page, selector, after, end)

    async def _first_of_last(self, selector: Selector, count: int, newest: int) -> int | None:
        return await self._reads.run(self._reads.first_of_last, selector, count, newest)

    async def _place_since(self, stream: Stream, since: datetime, newest: int) -> int:
        return await self._reads.run(self._reads.place_since, stream, utc(since), newest)


def bytes_of(path: str) -> int:
    """What a store takes on the disk."""
    parts = (path, f"{path}-wal")
    return sum(os.path.getsize(part) for part in parts if os.path.exists(part))
