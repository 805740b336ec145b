"""A clock that a test moves, and short ways to write and read records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from streamkit.generated.streamservice import JobProgress, LogEntry, Update
from streamkit.journal import Delivery, Item, Journal, Record, Selector, Start, Stream

M = TypeVar("M")

BEGAN = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


async def pass_time(journal: Journal, clock: Clock, seconds: int) -> None:
    """Let time go by that the journal sees, second by second."""
    for _ in range(seconds):
        clock.advance(1)
        await journal.prune()


def updates(*texts: str, topic: str = "t") -> list[Update]:
    return [Update(topic=topic, message=text) for text in texts]


def log(message: str, level: str = "info", service: str = "api") -> LogEntry:
    return LogEntry(service=service, level=level, message=message)


def topics(*patterns: str) -> Selector:
    return Selector(Stream.UPDATES, patterns)


def logs(*services: str, level: int = 0) -> Selector:
    return Selector(Stream.LOGS, services, level)


def jobs(*ids: str) -> Selector:
    return Selector(Stream.JOBS, ids)


def messages(kind: type[M], entries: Iterable[Item[Record]]) -> list[M]:
    """The records themselves, all of which are of one kind."""
    found = [entry.message for entry in entries]
    assert all(isinstance(message, kind) for message in found), found
    return found  # type: ignore[return-value]  # looked at just now


def texts(entries: Iterable[Item[Record]]) -> list[str]:
    found = [entry.message for entry in entries]
    return [message.message for message in found if not isinstance(message, JobProgress)]


async def stored(
    journal: Journal, selector: Selector, start: Start | None = None
) -> list[Item[Record]]:
    """Everything that a reader that does not follow gets."""
    found: list[Item[Record]] = []
    async with aclosing(journal.read(selector, start or Start(all=True), follow=False)) as batches:
        async for batch in batches:
            found += batch.items
    return found


class Follower:
    """A following reader whose batches a test asks for one by one."""

    def __init__(self, batches: AsyncIterator[Delivery[Record]]) -> None:
        self.batches = batches
        self.entries: list[Item[Record]] = []

    async def next(self) -> Delivery[Record]:
        async with asyncio.timeout(10):
            batch = await anext(self.batches)
        self.entries += batch.items
        return batch

    async def until(self, count: int) -> list[Item[Record]]:
        """Read until so many entries came."""
        while len(self.entries) < count:
            await self.next()
        assert len(self.entries) == count
        return self.entries


@asynccontextmanager
async def following(
    journal: Journal, selector: Selector, start: Start | None = None, **manner: Any
) -> AsyncIterator[Follower]:
    """A follower that has started: its first batch was read."""
    batches = journal.read(selector, start or Start(), follow=True, **manner)
    async with aclosing(batches):
        follower = Follower(batches)
        await follower.next()
        yield follower


Opener = Callable[..., Awaitable[Journal]]
"""Opens the engine under test: options and clock by name."""
