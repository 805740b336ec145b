"""Streams of a server that follows a script: what it holds, and when it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from streamkit.client.attempts import Reconnect
from streamkit.client.events import ClientEvent
from streamkit.client.reading.cursor import JournalCursor
from streamkit.client.reading.resume import ResumingCall
from streamkit.client.retry import Retry
from streamkit.config import Backoff
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import (
    Control,
    Gap,
    Heartbeat,
    Position,
    SubscribeRequest,
    Update,
)
from tests.client.fakes import FakeChannel

META = {"streamkit-epoch": "e1", "streamkit-position": "0"}


class Line:
    """A message of a foreign service: no streamkit fields at all."""

    def __init__(self, number: int | None) -> None:
        self.number = number


class Log:
    """What a fake server holds and how it breaks: after so many messages of each attempt."""

    def __init__(self, count: int, cuts: list[int], overlap: int = 0) -> None:
        self.count, self.cuts, self.overlap = count, cuts, overlap
        self.delays: list[float] = []
        self.events: list[ClientEvent] = []

    async def play(self, path: str, request: Any) -> AsyncIterator[Any]:
        cut = self.cuts.pop(0) if self.cuts else self.count + 1
        numbers = range(max(1, request + 1 - self.overlap), self.count + 1)
        for sent, number in enumerate(numbers):
            if sent == cut:
                raise ConnectError("cut")
            yield [Line(number)]

    async def sleep(self, delay: float) -> None:
        self.delays.append(delay)

    def reconnect(self, **changes: Any) -> Reconnect:
        return Reconnect(
            lambda: Retry(Backoff(jitter=0.0), chance=lambda: 0.5),
            on_event=self.events.append,
            sleep=self.sleep,
            **changes,
        )

    def call(self, channel: FakeChannel, **changes: Any) -> ResumingCall[Any, Any]:
        return ResumingCall(
            channel,  # type: ignore[arg-type]  # the fake has the methods that are used
            "/shop.Orders/Watch",
            int,
            Line,
            request_from=lambda place: place or 0,
            position_of=lambda line: line.number,
            reconnect=self.reconnect(**changes),
        )


def cursor(**changes: Any) -> JournalCursor[SubscribeRequest, Update]:
    options = {"endless": True, **changes}
    return JournalCursor(
        lambda start: SubscribeRequest(["a"], start=start),  # type: ignore[arg-type]  # None: new
        None,
        **options,
    )


def journal_call(
    channel: FakeChannel, place: JournalCursor[SubscribeRequest, Update], log: Log
) -> ResumingCall[SubscribeRequest, Update]:
    return ResumingCall(
        channel,  # type: ignore[arg-type]  # the fake has the methods that are used
        "/streamservice.StreamService/SubscribeToUpdates",
        SubscribeRequest,
        Update,
        cursor=place,
        reconnect=log.reconnect(),
        confirm=True,
    )


def heartbeat(sequence: int) -> Update:
    position = Position(epoch="e1", sequence=sequence)
    return Update(control=Control(heartbeat=Heartbeat(position=position)))


def gap(first: int, last: int) -> Update:
    return Update(control=Control(gap=Gap(first, last, "retention")))


def numbers(updates: list[Update]) -> list[int]:
    return [update.sequence for update in updates]
