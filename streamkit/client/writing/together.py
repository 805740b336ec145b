"""Publishes that are made at once leave as one request: most of what each costs is the call."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from streamkit.errors import ConnectError, Status, StreamkitError
from streamkit.generated.streamservice import Update
from streamkit.transport.grpc.deadline import served

__all__ = ["Together"]

_MOST = 1_000
"""Updates of one request,"""
_BYTES = 256 * 1024
"""and about their bytes: a server need not take more than 4 MiB."""

_REFUSED = frozenset(
    {
        Status.INVALID_ARGUMENT,
        Status.PERMISSION_DENIED,
        Status.RESOURCE_EXHAUSTED,
        Status.FAILED_PRECONDITION,
        Status.OUT_OF_RANGE,
    }
)
"""Nothing of the request was stored, and it may be for the sake of one update alone."""

Send = Callable[[list[Update]], Awaitable[list[int]]]


class _Publish(NamedTuple):
    """One that waits for its sequence."""

    update: Update
    sequence: asyncio.Future[int]


class Together:
    """The single publishes of one client on one loop. `send` stores updates, all or none."""

    def __init__(self, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._send = send
        self._turn: list[_Publish] | None = None
        self._bytes = 0  # of the turn
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, update: Update, size: int) -> int:
        """Store one update and return its sequence; raise what would be raised of it alone.

        Those of one turn of the loop are stored in the order of the calls. Cancelled, an update
        may or may not be stored, and the others are.
        """
        if served() is not None:  # its deadline is not that of others
            return (await self._send([update]))[0]
        own = _Publish(update, self.loop.create_future())
        earlier = self._turn
        if earlier is not None:
            if len(earlier) < _MOST and self._bytes + size <= _BYTES:
                earlier.append(own)
                self._bytes += size
                return await own.sequence
            self._begin(earlier)
        turn = self._turn = [own]
        self._bytes = size
        try:
            await asyncio.sleep(0)  # whoever publishes in this turn has joined by then
        except asyncio.CancelledError:
            own.sequence.cancel()
            if self._turn is turn:
                self._turn = None
                self._begin(turn)
            raise
        if self._turn is turn:
            self._turn = None
            if len(turn) == 1 and earlier is None:
                return (await self._send([update]))[0]
            self._begin(turn)
        return await own.sequence

    async def close(self) -> None:
        """End what is on its way: it fails with ConnectError."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, turn: list[_Publish]) -> None:
        task = self.loop.create_task(self._store(turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store(self, publishes: list[_Publish]) -> None:
        publishes = [publish for publish in publishes if not publish.sequence.done()]
        if not publishes:
            return
        try:
            sequences = await self._send([publish.update for publish in publishes])
        except asyncio.CancelledError:
            self._cancelled(publishes)
            raise
        except StreamkitError as error:
            if len(publishes) > 1 and error.status in _REFUSED:
                await self._store_apart(publishes)
            else:
                _fail(publishes, error)
        except Exception as error:  # whoever waits must hear of it
            _fail(publishes, error)
        else:
            for publish, sequence in zip(publishes, sequences, strict=True):
                if not publish.sequence.done():
                    publish.sequence.set_result(sequence)

    async def _store_apart(self, publishes: list[_Publish]) -> None:
        """In halves, so that what is refused is so alone in the end."""
        half = len(publishes) // 2
        try:
            await self._store(publishes[:half])
            await self._store(publishes[half:])
        except asyncio.CancelledError:
            self._cancelled(publishes)
            raise

    def _cancelled(self, publishes: list[_Publish]) -> None:
        for publish in publishes:
            if not publish.sequence.done():
                if self._closed:
                    publish.sequence.set_exception(ConnectError("the client is closed"))
                else:  # the loop ends
                    publish.sequence.cancel()


def _fail(publishes: list[_Publish], error: Exception) -> None:
    for publish in publishes:
        if not publish.sequence.done():
            # Each its own: what raises an error adds to its traceback.
            publish.sequence.set_exception(copy.copy(error))
