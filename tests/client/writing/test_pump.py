"""The pump under the writers, on calls that break in a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamkit.client.attempts import Reconnect
from streamkit.client.writing.outbox import Outbox
from streamkit.client.writing.pump import Pump
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import Update


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
