"""Frames between two processes of one server, here both ends in one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamkit.errors import ConnectError, LimitError, NotFoundError, Status
from streamkit.intercom import Intercom


class End:
    """Notes what it hears; `answers` decides about questions."""

    def __init__(self, answers: Callable[[Any], Any] = lambda value: value) -> None:
        self.heard: list[Any] = []
        self.full = 0
        self.empty = asyncio.Event()
        self.lost = asyncio.Event()
        self.line = Intercom(
            on_told=lambda kind, value: self.heard.append((kind, value)),
            on_asked=lambda kind, value, reply: reply(answers(value)),
            on_full=self._fill,
            on_empty=self.empty.set,
            on_lost=self.lost.set,
            high=1000,
        )

    def _fill(self) -> None:
        self.full += 1


@asynccontextmanager
async def pair(
    answers: Callable[[Any], Any] = lambda value: value,
) -> AsyncIterator[tuple[End, End]]:
    ours, theirs = socket.socketpair()
    one, other = End(), End(answers)
    await one.line.start(ours)
    await other.line.start(theirs)
    yield one, other
    one.line.close()
    other.line.close()
    await asyncio.gather(one.lost.wait(), other.lost.wait())


async def test_what_is_told_comes_before_the_answer_to_what_is_asked_after_it() -> None:
    async with pair() as (one, other):
        told = [b"", "text\ud800", (1, None, True), {"a": [1.5]}, b"x" * 1_000_000, "after"]
        for value in told:
            one.line.tell(7, value)
        assert await one.line.ask(8, (1, "two")) == (1, "two")
        assert other.heard == [(7, value) for value in told]
        assert one.full and one.empty.is_set()


async def test_answers_find_their_questions() -> None:
    async with pair() as (one, _):
        asked = [one.line.ask(9, number) for number in range(100)]
        assert await asyncio.gather(*asked) == list(range(100))


async def test_an_error_is_an_answer() -> None:
    errors = [
        NotFoundError("no job", hint="look"),
        LimitError("full", status=Status.UNAVAILABLE),
    ]
    async with pair(lambda value: errors[value]) as (one, _):
        for number, error in enumerate(errors):
            with pytest.raises(type(error)) as caught:
                await one.line.ask(2, number)
            got = caught.value
            assert (got.message, got.hint, got.status) == (error.message, error.hint, error.status)


async def test_whoever_waits_learns_that_the_other_side_is_gone() -> None:
    async with pair(lambda value: None) as (one, other):
        other.line.close()
        await one.lost.wait()
        with pytest.raises(ConnectError, match="gone"):
            await one.line.ask(2, None)
        one.line.tell(2, None)
