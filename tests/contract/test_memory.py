"""The memory engine passes the journal's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from streamkit.config import JournalOptions
from streamkit.journal import Journal, open_journal
from tests.contract import jobs, journal, retention
from tests.contract.support import Clock, Opener


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opener(clock: Clock) -> Opener:
    async def open_one(
        options: JournalOptions | None = None, steady: Callable[[], float] | None = None
    ) -> Journal:
        return await open_journal(":memory:", options, clock=clock, steady=steady)

    return open_one


@pytest.fixture(name="journal")
async def _journal(opener: Opener) -> AsyncIterator[Journal]:
    async with await opener() as opened:
        yield opened


class TestWriting(journal.Writing):
    pass


class TestProducers(journal.Producers):
    pass


class TestReading(journal.Reading):
    pass


class TestFollowing(journal.Following):
    pass


class TestRetaining(retention.Retaining):
    pass


class TestJobs(jobs.Jobs):
    pass
