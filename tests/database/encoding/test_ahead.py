"""One record batch is read while the one before it is in use: what that must not change."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from typing import Any

import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, open_source
from streamkit.database.base import Result
from streamkit.database.encoding.ahead import batches_ahead
from streamkit.errors import CallCancelledError, LimitError, QueryError
from tests.database.engines import ENDLESS, Postgres
from tests.database.queries import frames_of


class Numbered(Result):
    """Batches 1, 2, 3 ... of which the last is known to be it, or not."""

    arrow = True

    def __init__(self, count: int, *, known: bool = True) -> None:
        self.reads = 0
        self.readers: set[threading.Thread] = set()
        self._count = count
        self._known = known

    def start(self) -> None: ...

    def record_batch(self, size: int, max_bytes: int) -> int | None:
        self.reads += 1
        self.readers.add(threading.current_thread())
        if self.reads > self._count:
            self.finished = True
            return None
        self.finished = self._known and self.reads == self._count
        return self.reads

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Failing(Numbered):
    """In the place of the end comes an error."""

    def record_batch(self, size: int, max_bytes: int) -> int | None:
        batch = super().record_batch(size, max_bytes)
        if batch is None:
            raise QueryError("boom")
        return batch


class Stuck(Numbered):
    """Its second batch comes only when the statement is cancelled, and not at the first word."""

    def __init__(self) -> None:
        super().__init__(5)
        self.cancels = threading.Semaphore(0)
        self.stopped = False

    def record_batch(self, size: int, max_bytes: int) -> int | None:
        if self.reads == 1:
            self.stopped = all(self.cancels.acquire(timeout=10) for _ in range(2))
            raise CallCancelledError("the query was cancelled")
        return super().record_batch(size, max_bytes)

    def cancel(self) -> None:
        self.cancels.release()


def read(result: Result) -> list[tuple[Any, bool]]:
    with closing(batches_ahead(result, repeat(1), 1)) as batches:
        return list(batches)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name == "streamkit-read"]


def test_batches_come_in_order_and_the_last_one_says_so() -> None:
    assert read(Numbered(3)) == [(1, False), (2, False), (3, True)]
    assert read(Numbered(3, known=False)) == [(1, False), (2, False), (3, False)]


def test_a_result_of_one_batch_needs_no_thread() -> None:
    result = Numbered(1)
    assert read(result) == [(1, True)]
    assert read(Numbered(0)) == []
    assert result.readers == {threading.current_thread()}


def test_one_batch_is_read_ahead_and_no_more() -> None:
    result = Numbered(10)
    with closing(batches_ahead(result, repeat(1), 1)) as batches:
        for expected in (1, 2, 3):
            assert next(batches) == (expected, False)
            while result.reads <= expected:
                time.sleep(0.001)
            time.sleep(0.02)  # time to read on for one that would
            assert result.reads == expected + 1
    assert len(result.readers) == 2


def test_an_error_comes_after_the_batches_before_it() -> None:
    with closing(batches_ahead(Failing(2, known=False), repeat(1), 1)) as batches:
        assert [next(batches), next(batches)] == [(1, False), (2, False)]
        with pytest.raises(QueryError, match="boom"):
            next(batches)


def test_closing_cancels_what_is_being_read_until_it_ends() -> None:
    result = Stuck()
    with closing(batches_ahead(result, repeat(1), 1)) as batches:
        assert next(batches) == (1, False)
    assert result.stopped


async def test_a_limit_ends_the_statement_that_is_read_ahead(postgres: Postgres) -> None:
    """It has rows for the limit and some more, and then hours of work before the next."""
    slow = f"SELECT generate_series(1, 10000) AS x UNION ALL ({ENDLESS['postgresql']})"
    databases = Databases({"db": open_source("db", postgres.url)}, QueryLimits(max_rows=4000))
    async with asyncio.timeout(20):
        with pytest.raises(LimitError, match="the server's limit"):
            await frames_of(databases, slow, batch_rows=100)
    assert databases.running == 0
    await databases.close()
