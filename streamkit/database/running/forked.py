"""Statements in processes of their own: for databases that are a library in this one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.plan import QueryPlan
from streamkit.database.running.children import LOST, Child, Children
from streamkit.database.running.parcels import Ended, Parcel, Request
from streamkit.database.running.work import Runner, Work
from streamkit.errors import CallCancelledError, DeadlineError, LimitError, StreamkitError

__all__ = ["Forked"]

_CATALOGUE_SECONDS = 30.0
_END_SECONDS = 0.2
"""A statement that was told to end, or has given its last row, is left so much for it."""

_log = logging.getLogger(__name__)


class Forked(Runner):
    """Runs every statement on the source of that name in a child."""

    def __init__(self, children: Children, name: str, limits: QueryLimits) -> None:
        self._children = children
        self._name = name
        self._limits = limits

    def begin(self, plan: QueryPlan, on_end: Callable[[], None]) -> Work:
        request = Request("rows", self._name, plan)
        return _ForkedWork(self._children, request, self._limits, lambda _: on_end())

    def count(self, plan: QueryPlan, on_end: Callable[[int | None], None]) -> Work:
        request = Request("count", self._name, plan)
        work = _ForkedWork(self._children, request, self._limits, on_end)
        work.run_to_end()
        return work

    async def ask(self, kind: str, table: str = "") -> list[tuple[Any, ...]]:
        found: list[Any] = []
        request = Request(kind, self._name, table)
        work = _ForkedWork(self._children, request, self._limits, found.append)
        try:
            async with asyncio.timeout(_CATALOGUE_SECONDS):
                await work.get()
        except TimeoutError:
            raise DeadlineError("the database does not say what it holds") from None
        finally:
            work.stop(CallCancelledError("nobody asks any more"))
        return [tuple(item) for item in found[0] or ()]


class _ForkedWork(Work):
    def __init__(
        self,
        children: Children,
        request: Request,
        limits: QueryLimits,
        on_end: Callable[[Any], None],
    ) -> None:
        self._children = children
        self._limits = limits
        self._on_end = on_end
        self._reason: StreamkitError | None = None
        self._child: Child | None = None
        self._last = self._ended = self._heard = False
        self._request = request
        self._reading: asyncio.Task[None] | None = None
        self._beginning = asyncio.create_task(self._begin(request))

    async def get(self, timeout: float | None = None) -> Parcel | None:
        if self._child is None and not self._ended:
            async with asyncio.timeout(timeout):
                await asyncio.wait([self._beginning])
        while self._child is not None and self._reason is None:
            told = await self._child.next(timeout)
            if told is LOST and await self._to_begin_again(self._child):
                self._children.end(self._child)
                self._child = None
                self._beginning = asyncio.create_task(self._begin(self._request))
                return await self.get(timeout)
            self._heard = self._heard or told is not None
            if isinstance(told, Ended):
                self._finish(told)
            elif told is not None and self._reason is None:
                self._last = told.last
                return told
        if self._reason is not None:
            raise self._reason
        return None

    async def _to_begin_again(self, child: Child) -> bool:
        """Whether a lost child ended with the one that made it, not by what it was asked; then
        nothing was heard of it, nor is the query to stop."""
        if self._heard or self._reason is not None or not await self._children.orphaned(child):
            return False
        return self._reason is None

    def stop(self, reason: StreamkitError) -> None:
        if self._ended or self._reason is not None:
            return
        self._reason = reason
        if self._child is None:
            self._beginning.cancel()
            self._over(None)
        else:
            if not self._last:
                self._child.cancel()
            self._reading = asyncio.create_task(self._await_end(self._child))

    def run_to_end(self) -> None:
        """Read what comes, for what `on_end` is told."""
        self._reading = asyncio.create_task(self._read())

    async def _begin(self, request: Request) -> None:
        try:
            child = await self._children.take(self.stop)
        except StreamkitError as error:
            self._reason = self._reason or error
            self._over(None)
            return
        if self._ended:
            self._children.give(child)
            return
        self._child = child
        await child.ask(request)

    async def _read(self) -> None:
        with suppress(StreamkitError):  # a count that fails is no count
            while await self.get() is not None:
                pass

    async def _await_end(self, child: Child) -> None:
        told: Parcel | Ended | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                while not isinstance(told, Ended):
                    told = await child.next()
        self._finish(told if isinstance(told, Ended) else LOST)

    def _finish(self, told: Ended) -> None:
        """The child has ended its work, or is gone."""
        if self._ended:
            return
        child = self._child
        if told is LOST or child is None:
            if child is not None:
                self._children.end(child)
            if self._reason is None:
                _log.warning("a query's process ended by itself; it may have had too little memory")
                self._reason = LimitError(
                    "the query's process was ended: it may need more than"
                    f" {self._limits.max_memory >> 20} MiB of memory, the server's limit"
                )
            self._over(None)
            return
        if told.trace:
            _log.error("a query failed for a reason of the server's own\n%s", told.trace)
        self._reason = self._reason or told.error
        self._children.give(child, reusable=told.reusable)
        self._over(told.answer)

    def _over(self, answer: Any) -> None:
        if not self._ended:
            self._ended = True
            self._child = None
            if self._reading is not None and self._reading is not asyncio.current_task():
                self._reading.cancel()
            self._on_end(answer)
