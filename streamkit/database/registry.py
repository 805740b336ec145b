"""The databases of a server: names to sources, and how many queries run on them at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, Source, TableInfo
from streamkit.database.plan import QueryPlan
from streamkit.database.running.children import Children
from streamkit.database.running.forked import Forked
from streamkit.database.running.processes import can_fork
from streamkit.database.running.query import RunningQuery
from streamkit.database.running.threads import Threads
from streamkit.database.running.turns import Turns
from streamkit.database.running.work import Runner
from streamkit.errors import LimitError, NotFoundError, StreamkitError
from streamkit.framing import Framed
from streamkit.histogram import QUERY_SECONDS, Histogram

__all__ = ["Databases"]


class Databases:
    """Sources by name; "" is the server's own store. Belongs to one event loop."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        limits: QueryLimits | None = None,
        *,
        forked: bool = True,
    ) -> None:
        """With `forked` false every statement runs in a thread, also where that cannot be ended."""
        self.limits = limits or QueryLimits()
        self._sources = dict(sources)
        self._forked = forked and can_fork()
        self._children: Children | None = None
        self._retired: list[Children] = []  # whose statements began under other limits
        self._turns = Turns(self.limits, self._end_unread)
        self._running: dict[RunningQuery, str] = {}
        self.seconds: dict[tuple[str, str], Histogram] = {}
        """How long queries took that have ended, by database and outcome: done, failed, or left by
        their readers. The first one of its kind makes its entry; names of databases are few."""
        self._preparing: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """The names that a client may send, the own store's "" left out."""
        return sorted(name for name in self._sources if name)

    @property
    def running(self) -> int:
        """Queries that hold a connection now."""
        return len(self._running)

    @property
    def statements(self) -> int:
        """Statements that run now: those of the queries, and the counts beside them."""
        return sum(query.statements for query in self._running)

    @property
    def processes(self) -> set[int]:
        """The numbers of the processes that wait for statements or run them."""
        there = [] if self._children is None else [self._children]
        return set().union(*(children.numbers for children in (*there, *self._retired)))

    def source(self, name: str, visible: Callable[[str], bool] = lambda _: True) -> Source:
        """Return the source of that name. Raises NotFoundError; also for a name that is not
        `visible`, in the same words."""
        source = self._sources.get(name)
        if source is None or not visible(name):
            known = ", ".join(filter(visible, self.names)) or "none"
            raise NotFoundError(f"no database {name!r}; this server has: {known}")
        return source

    def restrict(self, limits: QueryLimits) -> None:
        """Queries that begin from now on keep to these limits, and have their turns by them."""
        self.limits = limits
        for source in self._sources.values():
            source.restrict(limits)
        children, self._children = self._children, None  # they were told the former ones
        if children is not None:
            children.retire()
            self._retired = [former for former in (*self._retired, children) if former.numbers]
        self._turns.restrict(limits)

    def prepare(self) -> None:
        """Begin to load what first queries would have to wait for, beside everything else."""
        self._preparing = asyncio.create_task(self._prepare())

    @asynccontextmanager
    async def run(
        self, name: str, plan: QueryPlan, owner: str = ""
    ) -> AsyncIterator[AsyncGenerator[Framed, None]]:
        """Run a query in its turn and give its messages; leaving the block ends it.

        `owner` is who asks, and has a share of the turns. Raises NotFoundError, and LimitError
        when no turn came in time.
        """
        runner = self._runner(self.source(name))
        await self._turns.take(owner)
        query = RunningQuery(name, runner, plan, self.limits, lambda: self._ended(query, owner))
        self._running[query] = owner
        query.start()
        outcome = "left"
        try:
            async with aclosing(query.frames()) as frames:
                yield frames
            outcome = "done"
        except Exception:
            outcome = "failed"
            raise
        finally:
            figures = self.seconds.setdefault((name, outcome), Histogram(QUERY_SECONDS))
            figures.add(query.seconds)
            await query.close()

    def running_now(self) -> dict[str, int]:
        """How many queries run, by database. May be asked in any thread."""
        return dict.fromkeys(self._sources, 0) | Counter(q.database for q in tuple(self._running))

    def end_running(self, name: str, reason: StreamkitError, *, after: float) -> int:
        """End the queries on one database that have run for so many seconds; how many they are."""
        self.source(name)
        found = [q for q in self._running if q.database == name and q.seconds >= after]
        for query in found:
            query.end(reason)
        return len(found)

    async def tables(self, name: str = "") -> list[TableInfo]:
        """What can be queried in a database. Raises NotFoundError, PreconditionError."""
        return [TableInfo(*table) for table in await self._asked(name).ask("tables")]

    async def describe(self, table: str, name: str = "") -> list[ColumnInfo]:
        """The columns of a table or view. Raises NotFoundError, PreconditionError."""
        return [ColumnInfo(*column) for column in await self._asked(name).ask("describe", table)]

    async def close(self) -> None:
        """Stop every query and release the sources."""
        for query in tuple(self._running):
            await query.close()
        if self._preparing is not None:
            await self._preparing
        there = [] if self._children is None else [self._children]
        for children in (*there, *self._retired):
            await children.close()
        for source in self._sources.values():
            source.close()

    def _runner(self, source: Source) -> Runner:
        if not (self._forked and source.forked):
            return Threads(source, self.limits)
        return Forked(self._processes(), source.name, self.limits)

    def _asked(self, name: str) -> Runner:
        """A catalogue is asked here where the source's own statements are safe and quick."""
        source = self.source(name)
        return Threads(source, self.limits) if source.asked_here else self._runner(source)

    def _processes(self) -> Children:
        if self._children is None:
            forked = {s.name: s for s in self._sources.values() if s.forked}
            self._children = Children(forked, self.limits)
        return self._children

    async def _prepare(self) -> None:
        for source in self._sources.values():
            if not (self._forked and source.forked):
                await asyncio.to_thread(source.prepare)
            elif self._children is None:
                await self._processes().prepare()

    def _ended(self, query: RunningQuery, owner: str) -> None:
        del self._running[query]
        self._turns.give(owner)

    def _end_unread(self, owner: str | None) -> None:
        """Others wait: end the result that has lain unread for longest, of `owner` or of all."""
        found = [q for q, whose in self._running.items() if owner is None or whose == owner]
        query = max(found, key=lambda query: query.unread, default=None)
        if query is not None and query.unread >= self.limits.max_unread:
            query.end(
                LimitError(
                    f"the result was not read for {query.unread:.0f} s while others waited",
                    hint="read what was asked for, or ask for less",
                )
            )
