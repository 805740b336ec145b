"""A process that reads beside the one that owns the store passes the journal's contract, also when
the owner is itself one of several servers on a log.

Both are in this process here, with the socket between them that they have otherwise.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.journal import Journal, open_journal
from streamkit.journal.following.feed import Feed
from streamkit.journal.following.follower import FollowerJournal
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.testing.journal import Following, Jobs, Producers, Reading, Retaining, Writing
from streamkit.testing.journal.support import Clock, Opener
from tests.journal.replicated.logs import MemoryLog, follow


class Worker(FollowerJournal):
    """Closes what it follows with itself."""

    feed: Feed
    owner: Journal

    async def close(self) -> None:
        await super().close()
        await self.feed.close()
        await self.owner.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["file", "log"])
def opener(clock: Clock, tmp_path: Path, request: pytest.FixtureRequest) -> Opener:
    names = (tmp_path / f"journal{n}" for n in count())

    async def open_one(
        options: JournalOptions | None = None, steady: Callable[[], float] | None = None
    ) -> Journal:
        name = next(names)
        owner: Journal
        if request.param == "file":
            owner = await open_journal(f"{name}.db", options, clock=clock, steady=steady)
        else:
            owner = await follow(MemoryLog(), name, clock, options=options, steady=steady)
        assert isinstance(owner, SqliteJournal)
        feed = Feed(owner)
        ours, theirs = socket.socketpair()
        await feed.join(ours)
        seconds = steady or (lambda: clock().timestamp())
        worker = await Worker.join(theirs, options or JournalOptions(), clock, seconds)
        assert isinstance(worker, Worker)
        worker.feed, worker.owner = feed, owner
        return worker

    return open_one


@pytest.fixture(name="journal")
async def _journal(opener: Opener) -> AsyncIterator[Journal]:
    async with await opener() as opened:
        yield opened


class TestWriting(Writing):
    pass


class TestProducers(Producers):
    pass


class TestReading(Reading):
    pass


class TestFollowing(Following):
    pass


class TestRetaining(Retaining):
    pass


class TestJobs(Jobs):
    pass
