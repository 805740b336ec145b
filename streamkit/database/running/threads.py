"""Statements in threads of the server: for databases that are elsewhere and stop when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import astuple
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.base import Result, Source
from streamkit.database.encoding.pieces import count_of, pieces_of
from streamkit.database.plan import QueryPlan
from streamkit.database.running.handover import Handover
from streamkit.database.running.parcels import Parcel
from streamkit.database.running.statement import CANCEL_INTERVAL, Statement, StatementThread
from streamkit.database.running.work import Runner, Work
from streamkit.errors import StreamkitError

__all__ = ["Threads"]

_HANDOVER_ITEMS = 2


class Threads(Runner):
    """Runs every statement on a source in a thread of its own."""

    def __init__(self, source: Source, limits: QueryLimits) -> None:
        self._source = source
        self._limits = limits

    def begin(self, plan: QueryPlan, on_end: Callable[[], None]) -> Work:
        return _ThreadWork(self._source, plan, self._limits, on_end)

    def count(self, plan: QueryPlan, on_end: Callable[[int | None], None]) -> Work:
        return _ThreadCount(self._source, plan, self._limits, on_end)

    async def ask(self, kind: str, table: str = "") -> list[tuple[Any, ...]]:
        arguments = (table,) if kind == "describe" else ()
        found = await asyncio.to_thread(getattr(self._source, kind), *arguments)
        return [astuple(item) for item in found]


class _ThreadWork(Work):
    def __init__(
        self, source: Source, plan: QueryPlan, limits: QueryLimits, on_end: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._limits = limits
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._handover: Handover[Parcel] = Handover(self._loop, _HANDOVER_ITEMS)
        self._stopping = self._ended = False
        statement = Statement(source, plan.sql, plan.parameters, plan.seconds)
        self._worker = StatementThread(statement, self._work, self._worked)
        self._worker.start()

    async def get(self, timeout: float | None = None) -> Parcel | None:
        return await self._handover.get(timeout)

    def stop(self, reason: StreamkitError) -> None:
        self._handover.close(reason)
        if not self._stopping:
            self._stopping = True
            self._cancel()

    def _cancel(self) -> None:
        """Again and again, until the thread is back."""
        if not self._ended:
            self._worker.cancel()
            self._loop.call_later(CANCEL_INTERVAL, self._cancel)

    def _work(self, result: Result) -> None:
        """In the thread."""
        columns_wanted = self._plan.columns
        with closing(pieces_of(result, self._plan, self._limits)) as parts:
            for pieces, last in parts:
                columns = result.columns if columns_wanted else None
                self._handover.put(Parcel(columns, pieces, last))
                columns_wanted = False
        if columns_wanted:
            self._handover.put(Parcel(result.columns, [], False))

    def _worked(self, error: StreamkitError | None) -> None:
        """In the thread."""
        self._handover.end(error)
        with suppress(RuntimeError):  # the loop was closed with the query still running
            self._loop.call_soon_threadsafe(self._thread_ended)

    def _thread_ended(self) -> None:
        self._ended = True
        self._on_end()


class _ThreadCount(_ThreadWork):
    def __init__(
        self,
        source: Source,
        plan: QueryPlan,
        limits: QueryLimits,
        on_end: Callable[[int | None], None],
    ) -> None:
        self._number: int | None = None
        super().__init__(source, plan, limits, lambda: on_end(self._number))

    def _work(self, result: Result) -> None:
        self._number = count_of(result)
