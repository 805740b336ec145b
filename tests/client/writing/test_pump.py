"""The pump under the writers, on calls that break in a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamkit.client.attempts import Reconnect
from streamkit.client.events import ClientEvent
from streamkit.client.retry import Retry
from streamkit.client.writing.outbox import Outbox
from streamkit.client.writing.pump import Pump
from streamkit.errors import (
    AuthError,
    ConnectError,
    InternalError,
    InvalidArgumentError,
    Status,
    StreamkitError,
)
from streamkit.generated.streamservice import Update, WriteReply, WriteRequest
from tests.client.servers import QUICK


class BrokenLink:
    """A channel whose calls hang in both directions until `snap` breaks both in one turn."""

    def __init__(self) -> None:
        self.calls = 0
        self.closing = asyncio.Event()
        self.trailing_metadata = None
        self.hanging = asyncio.Event()
        self._ends: list[asyncio.Future[Any]] = []

    @asynccontextmanager
    async def stream(self, *_: object, **__: object) -> AsyncIterator[BrokenLink]:
        self.calls += 1
        self._ends = []
        yield self

    async def send(self, _: object) -> None:
        await self.receive()

    async def receive(self) -> list[Any]:
        end = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        if len(self._ends) == 2:
            self.hanging.set()
        return await end  # type: ignore[no-any-return]  # a list, if it ever came

    def snap(self, *, sending_first: bool) -> None:
        for end in reversed(self._ends) if sending_first else self._ends:
            end.set_exception(ConnectError("the connection was lost"))


async def test_a_call_that_breaks_in_both_directions_at_once_is_made_again() -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    link = BrokenLink()
    again = asyncio.Event()

    async def sleep(_: float) -> None:
        again.set()

    reconnect = Reconnect(sleep=sleep)
    pump = Pump(link, Outbox("p"), reconnect, name="publisher", answer_timeout=5.0)  # type: ignore[arg-type]  # what a pump uses of a channel
    pump.put(Update(topic="a"), 1)
    for sending_first in (False, True):
        await link.hanging.wait()
        link.hanging.clear()
        link.snap(sending_first=sending_first)
        await again.wait()
        again.clear()
    assert link.calls >= 2
    await pump.close(0.0)
    assert faults == []


class Link:
    """A channel whose calls a test answers: requests come out, replies and endings go in."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.trailing_metadata = None
        self.requests: asyncio.Queue[WriteRequest] = asyncio.Queue()
        self.answers: asyncio.Queue[list[WriteReply] | StreamkitError] = asyncio.Queue()
        self.resets = 0

    @asynccontextmanager
    async def stream(self, *_: object, **__: object) -> AsyncIterator[Link]:
        yield self

    async def send(self, request: WriteRequest) -> None:
        self.requests.put_nowait(request)

    async def receive(self) -> list[WriteReply]:
        answer = await self.answers.get()
        if isinstance(answer, StreamkitError):
            raise answer
        return answer

    async def reset(self) -> None:
        self.resets += 1


def pump_on(link: Link, *, records: int = 100, patience: float = 30.0, **options: Any) -> Pump:
    outbox = Outbox("p", records=records, batch_records=1, window=2)
    return Pump(
        link,  # type: ignore[arg-type]  # what a pump uses of a channel
        outbox,
        Reconnect(lambda: Retry(QUICK)),
        name="publisher",
        answer_timeout=patience,
        **options,
    )


def refused(request: WriteRequest, text: str) -> WriteReply:
    number = request.producer.sequence
    return WriteReply(producer_sequence=number, code=Status.INVALID_ARGUMENT.value, error=text)


async def test_who_waits_for_room_learns_that_there_will_be_none() -> None:
    """A send into a full buffer must not wait for ever for a pump that has failed."""
    link = Link()
    pump = pump_on(link, records=1)
    pump.put(Update(topic="a"), 1)
    waiting = asyncio.create_task(pump.put_wait(Update(topic="a"), 1))
    await link.requests.get()
    link.answers.put_nowait(AuthError("not allowed"))
    with pytest.raises(AuthError, match="not allowed"):
        await asyncio.wait_for(waiting, 5)
    await pump.close(0.0)


async def test_one_unanswered_request_is_enough_to_lose_patience() -> None:
    link = Link()
    pump = pump_on(link, patience=0.05)
    pump.put(Update(topic="a"), 1)
    first = await link.requests.get()
    again = await asyncio.wait_for(link.requests.get(), 5)
    assert again.producer == first.producer, "the same request, on another connection"
    assert link.resets >= 1
    await pump.close(0.0)


async def test_after_an_answer_the_rest_is_waited_for_as_impatiently() -> None:
    """Two requests, one answer: what is left counts, were it only one."""
    link = Link()
    pump = pump_on(link, patience=0.2)
    for _ in range(2):
        pump.put(Update(topic="a"), 1)
    requests = [await link.requests.get() for _ in range(2)]
    link.answers.put_nowait([WriteReply(producer_sequence=requests[0].producer.sequence)])
    again = await asyncio.wait_for(link.requests.get(), 5)
    assert again.producer == requests[1].producer
    assert link.resets == 1
    await pump.close(0.0)


async def test_of_two_refusals_the_first_is_told_and_no_one_is_told_twice() -> None:
    link = Link()
    told: list[str] = []
    pump = pump_on(link, on_drop=lambda count, error: told.append(f"{count} {error}"))
    for _ in range(2):
        pump.put(Update(topic="a"), 1)
    requests = [await link.requests.get() for _ in range(2)]
    texts = ("the first", "the second")
    link.answers.put_nowait(
        [refused(request, text) for request, text in zip(requests, texts, strict=True)]
    )
    with pytest.raises(InvalidArgumentError, match="the first"):
        await asyncio.wait_for(pump.settled(), 5)
    await asyncio.wait_for(pump.settled(), 5)
    assert told == ["1 the first", "1 the second"]
    await pump.close(0.0)


async def test_a_quiet_stream_that_a_proxy_ends_costs_nothing() -> None:
    """Nothing is held up: nobody is told, nothing is dialled, and the next record finds its way."""
    link = Link()
    events: list[ClientEvent] = []
    pump = pump_on(link)
    pump._on_event = pump._attempts._how.on_event = events.append
    pump.put(Update(topic="a"), 1)
    request = await link.requests.get()
    link.answers.put_nowait([WriteReply(producer_sequence=request.producer.sequence)])
    await pump.settled()
    cut = InternalError("the server reset the stream: INTERNAL_ERROR")
    cut.ending = "reset INTERNAL_ERROR"
    link.answers.put_nowait(cut)
    pump.put(Update(topic="b"), 1)
    request = await asyncio.wait_for(link.requests.get(), 5)
    link.answers.put_nowait([WriteReply(producer_sequence=request.producer.sequence)])
    await asyncio.wait_for(pump.settled(), 5)
    assert pump.failure is None
    await pump.close(0.0)


async def test_a_fault_of_ours_is_told_to_who_waits() -> None:
    link = Link()

    def broken(_: WriteReply) -> None:
        raise RuntimeError("a mistake")

    pump = pump_on(link)
    pump.on_reply = broken
    for topic in ("a", "b"):
        pump.put(Update(topic=topic), 1)
    request = await link.requests.get()
    link.answers.put_nowait([WriteReply(producer_sequence=request.producer.sequence)])
    with pytest.raises(InternalError, match="a mistake"):
        await asyncio.wait_for(pump.settled(), 5)
    await pump.close(0.0)


async def test_closing_twice_gives_up_nothing_more() -> None:
    pump = pump_on(Link())
    pump.put(Update(topic="a"), 1)
    assert await pump.close(0.0) == 1
    assert await pump.close(0.0) == 0
