"""The journal that follows a log in NATS JetStream passes the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.journal import Journal, open_journal
from streamkit.testing.journal import Following, Jobs, Producers, Reading, Retaining, Writing
from streamkit.testing.journal.support import Clock, Opener
from tests.brokers import Brokers

_NUMBERS = count()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.soak)])
def brokers(request: pytest.FixtureRequest) -> Brokers:
    """One server, and, for longer, three."""
    found: Brokers = request.getfixturevalue("nats" if request.param == 1 else "nats_cluster")
    return found


@pytest.fixture
def opener(clock: Clock, tmp_path: Path, brokers: Brokers) -> Opener:
    async def open_one(
        options: JournalOptions | None = None, steady: Callable[[], float] | None = None
    ) -> Journal:
        number = next(_NUMBERS)
        url = brokers.url(f"contract{number}")
        folder = tmp_path / f"{number}"
        return await open_journal(url, options, clock=clock, steady=steady, data=folder)

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
