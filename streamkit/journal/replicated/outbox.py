"""What this server wants in the log, until it has come out of it again.

While entries are on their way, requests wait; what waits goes into the next entry together. An
entry is repeated until it is seen in the log, all that follow it as well and in order: the number
that each has makes everybody pass over what was there before, or what came too early.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streamkit.config import LogLimits
from streamkit.errors import LimitError, StoreError
from streamkit.journal.replicated.entries import packed, written
from streamkit.journal.sqlite.requests import Request

__all__ = ["Outbox"]

_REPEAT_AFTER = 1.0
_LOOK = 0.25


@dataclass(slots=True)
class _Flown:
    parts: list[bytes]
    waiters: list[asyncio.Future[Any]]
    sent: float


class Outbox:
    """Requests of one server on their way through the log. `append` hands one entry over."""

    def __init__(
        self,
        append: Callable[[bytes], Awaitable[None]],
        limits: LogLimits,
        waiting_bytes: int,
    ) -> None:
        self._append = append
        self._limits = limits
        self._most = waiting_bytes
        self._loop = asyncio.get_running_loop()
        self._pending: deque[tuple[bytes, asyncio.Future[Any]]] = deque()
        self._size = 0
        self._flying: dict[int, _Flown] = {}
        self._number = 0
        self._origin = secrets.token_bytes(8)
        self._wake = asyncio.Event()
        self._again = False
        self._missed = False
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.refusal: StoreError | None = None
        """Set while nothing is taken: what writers are told."""

    @property
    def origin(self) -> str:
        return self._origin.hex()

    async def enter(self, request: Request) -> asyncio.Future[Any]:
        """Take a request, when there is room for it: the future is its outcome. Requests have the
        order of the calls. Raises LimitError for one that is too large, and the refusal."""
        data = self._packed(request)
        async with self._turn:
            while not self._room.is_set() and self.refusal is None:
                await self._room.wait()
            if self.refusal is not None:
                raise self.refusal
            return self._put(data)

    def enter_soon(self, request: Request) -> asyncio.Future[Any] | None:
        """As `enter`, when there is nothing to wait for before it and nothing to refuse."""
        if self._turn.locked() or not self._room.is_set() or self.refusal is not None:
            return None
        return self._put(self._packed(request))

    async def run(self) -> None:
        """Send what waits, again and again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._again:
                self._again = False
                for number in list(self._flying):
                    await self._send(number)
            while self._pending and len(self._flying) < self._limits.in_flight and not self._again:
                await self._send(self._take())

    async def repeat(self) -> None:
        """Notice what does not come back, again and again."""
        while True:
            await asyncio.sleep(_LOOK)
            first = next(iter(self._flying.values()), None)
            after = _LOOK if self._missed else _REPEAT_AFTER
            if first is not None and self._loop.time() - first.sent > after:
                self._missed = False
                self._send_again()

    def missed(self) -> None:
        """Something that was sent is known not to be in the log."""
        self._missed = True

    def settle(
        self, origin: str, number: int, expected: int, outcomes: Sequence[Request] | None
    ) -> None:
        """An entry has come out of the log: with the outcomes of its requests, or passed over."""
        if origin != self.origin or number not in self._flying:
            return
        if outcomes is None:
            if number > expected:
                self._restart(expected)
            return
        flown = self._flying.pop(number)
        for request, waiter in zip(outcomes, flown.waiters, strict=True):
            if waiter.done():
                continue
            if request.error is not None:
                waiter.set_exception(request.error)
            else:
                waiter.set_result(request.result)
        self._look()

    def give_up(self, error: StoreError) -> None:
        """Everybody who waits is told; what is on its way may come to be stored all the same."""
        waiting = [waiter for _, waiter in self._pending]
        for flown in self._flying.values():
            waiting += flown.waiters
        self._pending.clear()
        self._size = 0
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._look()

    async def drain(self) -> None:
        """Return when all that was taken has come out of the log."""
        await self._empty.wait()

    def _packed(self, request: Request) -> bytes:
        data = packed(request)
        if len(data) > self._limits.largest:
            raise LimitError(
                f"a request of {len(data)} bytes is larger than an entry of the log may be"
                f" ({self._limits.largest})",
                hint="publish it in several smaller ones",
            )
        return data

    def _put(self, data: bytes) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append((data, future))
        self._size += len(data)
        self._empty.clear()
        if self._size >= self._most:
            self._room.clear()
        self._wake.set()
        return future

    def _take(self) -> int:
        """Make an entry of what waits."""
        parts: list[bytes] = []
        waiters: list[asyncio.Future[Any]] = []
        size = 0
        while self._pending and (
            not parts or size + len(self._pending[0][0]) <= self._limits.entry
        ):
            data, waiter = self._pending.popleft()
            parts.append(data)
            waiters.append(waiter)
            size += len(data)
        self._size -= size
        self._number += 1
        self._flying[self._number] = _Flown(parts, waiters, 0.0)
        self._look()
        return self._number

    async def _send(self, number: int) -> None:
        flown = self._flying.get(number)
        if flown is None:  # it came out of the log meanwhile
            return
        flown.sent = self._loop.time()
        try:
            await self._append(written(self._origin, number, flown.parts))
        except StoreError:
            return  # it is sent again, until it is seen in the log

    def _restart(self, expected: int) -> None:
        """What came before these entries is missing: they are sent again. If that cannot be,
        because the servers have forgotten this one, it takes another name."""
        if self._flying and next(iter(self._flying)) > expected:
            self._origin = secrets.token_bytes(8)
            flying = self._flying.values()
            self._flying = dict(enumerate(flying, 1))
            self._number = len(self._flying)
        self._send_again()

    def _send_again(self) -> None:
        self._again = True
        self._wake.set()

    def _look(self) -> None:
        if self._size < self._most:
            self._room.set()
        if not self._pending and not self._flying:
            self._empty.set()
        if self._pending:
            self._wake.set()
