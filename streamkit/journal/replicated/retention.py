"""Retention that is the same on every server: by what is stored, not by how its file looks.

How large a file is, and how far its thread has come between two writes, is each server's own. What
is removed decides what a repeated request is answered and which job is known, so it has to be a
function of the log: steps are taken within an entry, a fixed number of them, and the bytes that
count are those that are measured as they are stored. Giving space back is left to each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime

from streamkit.config import JournalOptions
from streamkit.journal.base import Stream
from streamkit.journal.sqlite.known import KnownJobs
from streamkit.journal.sqlite.remembered import Remembered
from streamkit.journal.sqlite.retention import Retention
from streamkit.journal.sqlite.sizes import Sizes

__all__ = ["ReplicaRetention"]


class ReplicaRetention(Retention):
    """Removes within a transaction of the caller, and keeps what is in memory equal to the file."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        options: JournalOptions,
        oldest: dict[Stream, int],
        following: dict[Stream, int],
        sizes: Sizes,
        *,
        remembered: Remembered,
        jobs: KnownJobs,
    ) -> None:
        super().__init__(connection, path, options, oldest, following, sizes)
        self._remembered = remembered
        self._jobs = jobs

    def look_again(self, now: datetime, ruled: datetime | None) -> datetime | None:
        """As `look`, from what the store knows alone: when the rules were last applied to the end.
        Returns when they are now, if the steps that follow come to the end."""
        self._cuts.clear()
        self._horizon = ""
        self._rules.restart(ruled)
        self.look(now)
        return now if self._rules.working else ruled

    @property
    def ruling(self) -> bool:
        """Whether the rules have something left to do."""
        return self._rules.working

    def tidy(self) -> bool:
        """Give space back to the file system; False if there is none to give."""
        self.pinned = False
        self._relieve_wal()
        return self._give_back()

    def _used(self) -> int:
        return self._sizes.total()

    def _transact(self, change: Callable[[], None]) -> None:
        change()

    def _delete_requests(self, where: str, parameters: tuple[object, ...]) -> None:
        for stream, producer, first, last in self._connection.execute(
            f"delete from dedupe where {where}"
            " returning stream, producer, request, ifnull(last, request)",
            parameters,
        ).fetchall():
            self._remembered.forget(Stream(stream), producer, first, last)

    def _delete_jobs(self, ids: list[str]) -> None:
        super()._delete_jobs(ids)
        for job_id in ids:
            self._jobs.forget(job_id)
