"""How a query in a thread is told to stop: again and again, once, and with no count after."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, QueryPlan
from streamkit.database.base import ColumnInfo, Parameters, Result, Source
from streamkit.database.running import query as running
from streamkit.database.running.statement import StatementThread
from streamkit.errors import DeadlineError, QueryError, StreamkitError


class Deaf(Result):
    """Rows until the cancel that it hears: the first ones are lost, as in a race with a start."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.cancels = 0
        self.go_on = threading.Event()
        self.batches = 0

    def start(self) -> None:
        self.columns = [ColumnInfo("n")]

    def rows(self, size: int, max_bytes: int) -> list[tuple[Any, ...]]:
        self.batches += 1
        if self.batches > 2:
            assert self.go_on.wait(10)
            raise QueryError("cancelled")
        return [(1,)] * size

    def cancel(self) -> None:
        self.cancels += 1
        if self.cancels > self.lost:
            self.go_on.set()

    def close(self) -> None:
        pass


class DeafSource(Source):
    name = "db"

    def __init__(self, lost: int) -> None:
        self.result = Deaf(lost)
        self.counts = 0

    def open(self, sql: str, parameters: Parameters = (), *, seconds: float) -> Result:
        self.counts += "count(*)" in sql
        return self.result

    def tables(self) -> list[Any]:
        return []

    def describe(self, table: str) -> list[Any]:
        return []

    def close(self) -> None:
        pass


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_cancel_that_is_lost_is_repeated(blocks: bool) -> None:
    source = DeafSource(lost=2)
    source.result.cancel_blocks = blocks
    databases = Databases({"db": source}, forked=False)
    plan = QueryPlan(sql="SELECT n", batch_rows=1)
    async with databases.run("db", plan) as frames, asyncio.timeout(10):
        await anext(frames)
    assert source.result.cancels == 3
    assert databases.statements == 0
    await databases.close()


async def test_who_is_told_twice_to_stop_is_stopped_once_and_for_the_first_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[StatementThread] = []
    cancel: Callable[[StatementThread], None] = StatementThread.cancel

    def counted(self: StatementThread) -> None:
        told.append(self)
        cancel(self)

    monkeypatch.setattr(StatementThread, "cancel", counted)
    databases = Databases({"db": DeafSource(lost=0)}, forked=False)
    plan = QueryPlan(sql="SELECT n", batch_rows=1)
    with pytest.raises(DeadlineError, match="first"):
        async with databases.run("db", plan) as frames:
            await anext(frames)
            (query,) = databases._running
            query.end(DeadlineError("first"))
            query.end(StreamkitError("second"))
            assert len(told) == 1
            while True:
                await anext(frames)
    await databases.close()


async def test_no_count_begins_once_a_query_was_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "_COUNT_AFTER", 0.3)
    source = DeafSource(lost=100)
    databases = Databases({"db": source}, QueryLimits(count_seconds=5), forked=False)
    plan = QueryPlan(sql="SELECT n", batch_rows=1)
    with pytest.raises(DeadlineError):
        async with databases.run("db", plan) as frames:
            await anext(frames)
            (query,) = databases._running
            reading = asyncio.create_task(anext(frames))
            while query._counting is None:
                await asyncio.sleep(0)
            query.end(DeadlineError("told to stop"))
            due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_at(query._counting.when() + 0.01, due.set_result, None)
            await asyncio.gather(reading, due)
            assert (source.counts, query.statements) == (0, 1)
            source.result.go_on.set()
            while True:
                await anext(frames)
    await databases.close()
