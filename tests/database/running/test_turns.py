"""Whose query runs next, and whose is ended for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, QueryPlan, open_source
from streamkit.database.running.turns import _LOOK_INTERVAL, Turns
from streamkit.errors import LimitError
from streamkit.framing import Framed
from tests.database.engines import Engine
from tests.database.queries import rows_of

LIMITS = QueryLimits(max_concurrent=4, share=0.75, max_wait=30.0)


def nobody(owner: str | None) -> None:
    """Makes no room."""


async def granted(turns: Turns, *owners: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(turns.take(owner)) for owner in owners]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_one_caller_has_its_share_and_no_more() -> None:
    turns = Turns(LIMITS, nobody)
    mine = await granted(turns, *["me"] * 6)
    assert [task.done() for task in mine] == [True] * 3 + [False] * 3
    (yours,) = await granted(turns, "you")
    assert yours.done()
    turns.give("me")
    await asyncio.sleep(0.01)
    assert [task.done() for task in mine] == [True] * 4 + [False] * 2
    await cancelled(mine[4:])


async def test_who_has_fewest_is_next() -> None:
    turns = Turns(LIMITS, nobody)
    await granted(turns, "a", "a", "a", "b")
    more = await granted(turns, "b", "b", "c", "a")
    assert not any(task.done() for task in more)
    turns.give("a")
    await asyncio.sleep(0.01)
    assert [task.done() for task in more] == [False, False, True, False]
    turns.give("a")
    await asyncio.sleep(0.01)
    assert [task.done() for task in more] == [True, False, True, False]
    await cancelled([task for task in more if not task.done()])


async def test_who_gives_up_waiting_takes_no_turn() -> None:
    turns = Turns(LIMITS, nobody)
    await granted(turns, "a", "a", "a", "b")
    waiting = await granted(turns, "c", "d")
    waiting[0].cancel()
    turns.give("a")
    await asyncio.sleep(0.01)
    assert waiting[0].cancelled()
    assert waiting[1].done()


async def test_a_refusal_says_whose_queries_are_in_the_way() -> None:
    asked: list[str | None] = []
    turns = Turns(QueryLimits(max_concurrent=4, max_wait=0.6), asked.append)
    await granted(turns, "a", "a", "a")
    with pytest.raises(LimitError, match="3 of your queries are running"):
        await turns.take("a")
    assert set(asked) == {"a"}
    await turns.take("b")
    with pytest.raises(LimitError, match="4 queries are running, the server's limit"):
        await turns.take("b")
    assert asked[-1] is None


async def test_room_is_made_at_once_and_not_at_the_next_look() -> None:
    turns = Turns(QueryLimits(max_concurrent=1), lambda _: turns.give("a"))
    await turns.take("a")
    began = asyncio.get_running_loop().time()
    for _ in range(80):  # each would wait a quarter of a second
        await turns.take("a")
    assert asyncio.get_running_loop().time() - began < 10


def test_an_unread_result_is_in_the_way_for_a_second_at_most() -> None:
    assert QueryLimits().max_unread + _LOOK_INTERVAL <= 1.0


async def test_unread_results_make_room_for_who_waits(sqlite_engine: Engine) -> None:
    limits = QueryLimits(max_concurrent=3, max_unread=0.3, max_wait=60.0, count_seconds=0)
    databases = Databases({"db": open_source("db", sqlite_engine.url)}, limits)
    async with AsyncExitStack() as stack:

        async def begun() -> AsyncGenerator[Framed, None]:
            plan = QueryPlan(sql=sqlite_engine.unbounded)
            frames = await stack.enter_async_context(databases.run("db", plan, "hostile"))
            await anext(frames)
            return frames

        unread = [await begun() for _ in range(3)]
        assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]
        ended = 0
        for frames in unread:
            try:
                for _ in range(20):
                    await anext(frames)
            except LimitError as error:
                ended += 1
                assert "while others waited" in str(error)
        assert ended == 1, "no more than were needed"
    await databases.close()


async def test_a_result_that_is_read_is_never_ended_for_others(sqlite_engine: Engine) -> None:
    limits = QueryLimits(max_concurrent=1, max_unread=0.3, max_wait=1.0, count_seconds=0)
    databases = Databases({"db": open_source("db", sqlite_engine.url)}, limits)
    async with databases.run("db", QueryPlan(sql=sqlite_engine.unbounded)) as frames:
        await anext(frames)
        other = asyncio.create_task(rows_of(databases, "SELECT 1 AS a"))
        while not other.done():
            await anext(frames)
        with pytest.raises(LimitError, match="1 queries are running"):
            await other
        await anext(frames)
    await databases.close()
