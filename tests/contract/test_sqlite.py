"""The SQLite engine passes the journal's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.journal import Journal, open_journal
from streamkit.testing.journal import Following, Jobs, Producers, Reading, Retaining, Writing
from streamkit.testing.journal.support import Clock, Opener


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opener(clock: Clock, tmp_path: Path) -> Opener:
    names = (str(tmp_path / f"journal{n}.db") for n in count())

    async def open_one(
        options: JournalOptions | None = None, steady: Callable[[], float] | None = None
    ) -> Journal:
        return await open_journal(next(names), options, clock=clock, steady=steady)

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
