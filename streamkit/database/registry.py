"""The databases of a server: names to sources, and how many queries run on them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, Source, TableInfo
from streamkit.database.plan import QueryPlan
from streamkit.database.running.query import Frames, RunningQuery
from streamkit.errors import LimitError, NotFoundError, StreamkitError

__all__ = ["Databases"]


class Databases:
    """Sources by name; "" is the server's own store. Belongs to one event loop."""

    def __init__(self, sources: Mapping[str, Source], limits: QueryLimits | None = None) -> None:
        self.limits = limits or QueryLimits()
        self._sources = dict(sources)
        self._slots = asyncio.Semaphore(self.limits.max_concurrent)
        self._running: set[RunningQuery] = set()
        self._preparing: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """The names that a client may send, the own store's "" left out."""
        return sorted(name for name in self._sources if name)

    @property
    def running(self) -> int:
        """Queries that hold a connection now."""
        return len(self._running)

    def source(self, name: str, visible: Callable[[str], bool] = lambda _: True) -> Source:
        """Return the source of that name. Raises NotFoundError; also for a name that is not
        `visible`, in the same words."""
        source = self._sources.get(name)
        if source is None or not visible(name):
            known = ", ".join(filter(visible, self.names)) or "none"
            raise NotFoundError(f"no database {name!r}; this server has: {known}")
        return source

    def prepare(self) -> None:
        """Begin to load what first queries would have to wait for, beside everything else."""
        self._preparing = asyncio.create_task(self._prepare())

    @asynccontextmanager
    async def run(self, name: str, plan: QueryPlan) -> AsyncIterator[AsyncGenerator[Frames, None]]:
        """Run a query in its turn and give its messages; leaving the block ends it.

        Raises NotFoundError, and LimitError when no turn came in time.
        """
        source = self.source(name)
        await self._take_slot()
        query = RunningQuery(source, plan, self.limits, lambda: self._give_slot(query))
        self._running.add(query)
        query.start()
        try:
            async with aclosing(query.frames()) as frames:
                yield frames
        finally:
            await query.close()

    def end_running(self, name: str, reason: StreamkitError, *, after: float) -> int:
        """End the queries on one database that have run for so many seconds; how many they are."""
        source = self.source(name)
        found = [q for q in self._running if q.source is source and q.seconds >= after]
        for query in found:
            query.end(reason)
        return len(found)

    async def tables(self, name: str = "") -> list[TableInfo]:
        """What can be queried in a database. Raises NotFoundError, PreconditionError."""
        return await asyncio.to_thread(self.source(name).tables)

    async def describe(self, table: str, name: str = "") -> list[ColumnInfo]:
        """The columns of a table or view. Raises NotFoundError, PreconditionError."""
        return await asyncio.to_thread(self.source(name).describe, table)

    async def close(self) -> None:
        """Stop every query and release the sources."""
        for query in tuple(self._running):
            await query.close()
        if self._preparing is not None:
            await self._preparing
        for source in self._sources.values():
            source.close()

    async def _prepare(self) -> None:
        for source in self._sources.values():
            await asyncio.to_thread(source.prepare)

    async def _take_slot(self) -> None:
        try:
            async with asyncio.timeout(self.limits.max_wait):
                await self._slots.acquire()
        except TimeoutError:
            raise LimitError(
                f"{self.limits.max_concurrent} queries are running, the server's limit",
                hint="try again when one of them has ended",
            ) from None

    def _give_slot(self, query: RunningQuery) -> None:
        self._running.discard(query)
        self._slots.release()
