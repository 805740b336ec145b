"""A log in memory, that a test may break, and servers that follow it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from streamkit.config import JournalOptions, LogLimits
from streamkit.errors import StoreError
from streamkit.generated.streamservice import Update
from streamkit.journal import Journal, ProducerId
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.journal.replicated.log import ANSWER, Log, LogEntry, LogStatus, Snapshot
from streamkit.testing.journal.support import Clock

__all__ = ["MemoryLog", "dump", "follow", "insisted"]


class MemoryLog(Log):
    """One end of a log that others may share: `MemoryLog(other)` is another end of the same."""

    url = "memory://log"
    name = "log"
    life = "0123456789abcdef"

    def __init__(self, other: MemoryLog | None = None) -> None:
        self.entries: list[bytes] = [] if other is None else other.entries
        self.removed: list[int] = [0] if other is None else other.removed
        self.kept: list[tuple[Snapshot, list[bytes]]] = [] if other is None else other.kept
        self.changed: asyncio.Condition = asyncio.Condition() if other is None else other.changed
        self.away = False
        self.silent = False
        """Whether it does not answer, and does not say so."""
        self.lose = 0
        """So many of the next entries are lost on their way."""
        self.double = False
        """Whether every entry comes twice."""

    async def open(self) -> None:
        pass

    async def append(self, data: bytes) -> None:
        if self.away:
            raise StoreError("the log is away")
        if self.lose:
            self.lose -= 1
            if self.on_missed is not None:
                self.on_missed()
            return
        async with self.changed:
            self.entries += [data] * (2 if self.double else 1)
            self.changed.notify_all()

    async def tail(self, after: int) -> AsyncGenerator[Sequence[LogEntry], None]:
        place = max(after - 1, 0)
        while True:
            async with self.changed:
                while len(self.entries) <= place or self.away:
                    await self.changed.wait()
                if place < self.removed[0]:
                    raise StoreError("the log begins later")
                some = self.entries[place : place + 16]
            yield [LogEntry(place + n, data) for n, data in enumerate(some, 1)]
            place += len(some)

    async def status(self, within: float = ANSWER) -> LogStatus:
        if self.silent:
            await asyncio.sleep(within)
        if self.away or self.silent:
            raise StoreError("the log is away")
        size = sum(map(len, self.entries[self.removed[0] :]))
        return LogStatus(self.removed[0] + 1, len(self.entries), size)

    async def trim(self, before: int) -> None:
        self.removed[0] = before - 1

    async def snapshot(self) -> Snapshot | None:
        return self.kept[-1][0] if self.kept else None

    async def put_snapshot(self, snapshot: Snapshot, parts: AsyncIterator[bytes]) -> None:
        self.kept.append((snapshot, [part async for part in parts]))

    async def get_snapshot(self, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
        for part in next(parts for kept, parts in self.kept if kept == snapshot):
            yield part

    async def close(self) -> None:
        pass


async def follow(
    log: Log,
    folder: Path,
    clock: Clock,
    *,
    options: JournalOptions | None = None,
    limits: LogLimits | None = None,
    steady: Callable[[], float] | None = None,
) -> ReplicatedJournal:
    """A server of its own on a log, with its copy in a folder."""
    folder.mkdir(exist_ok=True)
    return await ReplicatedJournal.follow(
        log,
        str(folder / "streamkit.db"),
        options or JournalOptions(),
        clock,
        steady or (lambda: clock().timestamp()),
        limits,
    )


async def insisted(
    journal: Journal, some: Sequence[Update], producer: ProducerId, lost: Sequence[StoreError]
) -> int:
    """As a client does: what was not answered in time is said again, until it is answered. `lost`
    is what servers have ended with, which none should."""
    while True:
        try:
            return (await journal.append_updates(some, producer)).first
        except StoreError:
            assert not lost
            await asyncio.sleep(0.1)


_OWN = "('open', 'durability', 'boot', 'epoch')"


def dump(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that a copy holds and that is not this server's own affair, table by table."""
    with closing(sqlite3.connect(folder / "streamkit.db")) as connection:
        names = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        found = {}
        for (name,) in names:
            where = f" where key not in {_OWN}" if name == "meta" else ""
            found[name] = sorted(connection.execute(f"select * from {name}{where}").fetchall())
        return found
