"""A running query: a statement's parcels -> framed messages, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from streamkit.config import QueryLimits
from streamkit.database.encoding.messages import Messages
from streamkit.database.encoding.rows import Piece
from streamkit.database.plan import QueryPlan
from streamkit.database.running.work import Runner, Work
from streamkit.errors import CallCancelledError, DeadlineError, StreamkitError
from streamkit.framing import Framed

__all__ = ["RunningQuery"]

_HOLD_FIRST = 0.015
_HOLD_LATER = 0.25
"""A full batch waits so long for the news whether it is the last one."""
_COUNT_AFTER = 0.2
_CLOSE_SECONDS = 2.0
_NOTHING = Piece(b"", 0)


class RunningQuery:
    """The messages of one query, to be iterated once; `close` ends it at any point.

    A reader that does not read stops the cursor after a few batches. When the plan's time is over
    the connection is given up at once, whether anybody reads or not.
    """

    def __init__(
        self,
        database: str,
        runner: Runner,
        plan: QueryPlan,
        limits: QueryLimits,
        on_end: Callable[[], None],
    ) -> None:
        self.database = database
        self._runner = runner
        self._plan = plan
        self._limits = limits
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._messages = Messages(batch_rows=plan.batch_rows, arrow=plan.arrow)
        self._work: Work | None = None
        self._counter: Work | None = None
        self._counting: asyncio.TimerHandle | None = None
        self._began = self._loop.time()
        self._handed = 0.0
        self._running = 0
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return self._loop.time() - self._began

    @property
    def statements(self) -> int:
        """How many run: its own, and a count."""
        return self._running

    def start(self) -> None:
        """Run the query. `on_end` is called when nothing of it is left."""
        self._running = 1
        self._began = self._loop.time()
        self._timer = self._loop.call_later(self._plan.seconds, self._expire)
        self._work = self._runner.begin(self._plan, self._part_ended)

    @property
    def unread(self) -> float:
        """For how long now the reader has not come for more; 0 while it is the one who waits."""
        return self._loop.time() - self._handed if self._handed else 0.0

    async def frames(self) -> AsyncGenerator[Framed, None]:
        """Yield the messages as they come. Raises the errors of a Result, and LimitError."""
        async with aclosing(self._frames()) as found:
            async for frames in found:
                self._handed = self._loop.time()
                yield frames
                self._handed = 0.0

    async def _frames(self) -> AsyncGenerator[Framed, None]:
        assert self._work is not None
        held: Piece | None = None
        while True:
            try:
                hold = _HOLD_LATER if self._messages.number else _HOLD_FIRST
                parcel = await self._work.get(None if held is None else hold)
            except TimeoutError:
                if held is not None:
                    yield self._framed([held])
                held = None
                continue
            except StreamkitError:
                if held is not None:
                    yield self._framed([held])
                raise
            if parcel is None:
                yield self._framed([held or _NOTHING], last=True)
                return
            if parcel.columns is not None:
                self._messages.announce(parcel.columns)
            pieces = parcel.pieces if held is None else [held, *parcel.pieces]
            if parcel.last:
                yield self._framed(pieces or [_NOTHING], last=True)
                return
            held = pieces[-1] if pieces else None
            if len(pieces) > 1:
                yield self._framed(pieces[:-1])
                self._count_beside()

    def end(self, reason: StreamkitError) -> None:
        """Stop the query; whoever reads it is told why. Its connection is given up soon."""
        self._stop(reason)

    async def close(self) -> None:
        """Stop the query and wait, for a bounded time, until its connections are given up."""
        self._stop(CallCancelledError("the query was cancelled"))
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._idle.wait()

    def _framed(self, pieces: Sequence[Piece], *, last: bool = False) -> Framed:
        return Framed(self._messages.frames(pieces, last=last), len(pieces))

    def _expire(self) -> None:
        self._stop(DeadlineError(f"the query ran longer than {self._plan.seconds:g} s"))

    def _stop(self, reason: StreamkitError) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stopping = True
        for part in (self._work, self._counter):
            if part is not None:
                part.stop(reason)

    def _count_beside(self) -> None:
        """Begin to count some time after a first batch is out and more follow: to know the end of
        what is quick helps nobody, and the first rows should not have to share the processor."""
        if self._counting is None and self._limits.count_seconds:
            self._counting = self._loop.call_later(_COUNT_AFTER, self._begin_counting)

    def _begin_counting(self) -> None:
        if not self._running or self._stopping:
            return  # the query has ended, perhaps while its last batches wait for a slow reader
        sql = f"SELECT count(*) FROM ({self._plan.sql.rstrip().rstrip(';')}\n) AS counted"
        plan = replace(self._plan, sql=sql, seconds=self._limits.count_seconds)
        self._running += 1
        self._counter = self._runner.count(plan, self._count_ended)
        self._counting = self._loop.call_later(self._limits.count_seconds, self._stop_counting)

    def _stop_counting(self) -> None:
        """Hold the count to its time: not every database does so itself."""
        assert self._counter is not None
        self._counter.stop(DeadlineError("the count took too long"))

    def _count_ended(self, number: int | None) -> None:
        self._messages.total_rows = number
        if self._counting is not None:
            self._counting.cancel()
        self._part_ended()

    def _part_ended(self) -> None:
        self._running -= 1
        if self._running == 0:
            for timer in (self._timer, self._counting):
                if timer is not None:
                    timer.cancel()
            self._idle.set()
            self._on_end()
