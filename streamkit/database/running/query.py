"""A running query: worker thread -> bounded hand-over -> framed messages on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, Result, Source
from streamkit.database.encoding.messages import Messages
from streamkit.database.encoding.pieces import pieces_of
from streamkit.database.encoding.rows import Piece
from streamkit.database.plan import QueryPlan
from streamkit.database.running.handover import Handover
from streamkit.database.running.statement import CANCEL_INTERVAL, Statement, StatementThread
from streamkit.errors import CallCancelledError, DeadlineError, StreamkitError

__all__ = ["Frames", "RunningQuery"]

_HANDOVER_ITEMS = 2
_HOLD_FIRST = 0.015
_HOLD_LATER = 0.25
"""A full batch waits so long for the news whether it is the last one."""
_COUNT_AFTER = 0.2
_CLOSE_SECONDS = 2.0
_NOTHING = Piece(b"", 0)


class Frames(NamedTuple):
    """Whole framed messages, and how many."""

    data: bytes | list[bytes | memoryview]
    messages: int


class _Parcel(NamedTuple):
    """What the worker hands over: the columns once, at the beginning, and pieces.

    `last` is set when the end was seen together with them.
    """

    columns: Sequence[ColumnInfo] | None
    pieces: list[Piece]
    last: bool


class RunningQuery:
    """The messages of one query, to be iterated once; `close` ends it at any point.

    Everything but the work of the database and the encoding happens on the event loop. A reader
    that does not read stops the cursor after a few batches. When the plan's time is over the
    connection is given up at once, whether anybody reads or not.
    """

    def __init__(
        self, source: Source, plan: QueryPlan, limits: QueryLimits, on_end: Callable[[], None]
    ) -> None:
        self._source = source
        self._plan = plan
        self._limits = limits
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._handover: Handover[_Parcel] = Handover(self._loop, _HANDOVER_ITEMS)
        self._messages = Messages(batch_rows=plan.batch_rows, arrow=plan.arrow)
        self._worker = StatementThread(
            Statement(source, plan.sql, plan.parameters, plan.seconds), self._work, self._worked
        )
        self._counter: StatementThread | None = None
        self._counting: asyncio.TimerHandle | None = None
        self._threads = 0
        self._began = self._loop.time()
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def source(self) -> Source:
        return self._source

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return self._loop.time() - self._began

    def start(self) -> None:
        """Run the query. `on_end` is called on the loop when its last thread is done."""
        self._threads = 1
        self._began = self._loop.time()
        self._timer = self._loop.call_later(self._plan.seconds, self._expire)
        self._worker.start()

    async def frames(self) -> AsyncGenerator[Frames, None]:
        """Yield the messages as they come. Raises the errors of a Result, and LimitError."""
        held: Piece | None = None
        while True:
            try:
                hold = _HOLD_LATER if self._messages.number else _HOLD_FIRST
                parcel = await self._handover.get(None if held is None else hold)
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

    def _framed(self, pieces: Sequence[Piece], *, last: bool = False) -> Frames:
        return Frames(self._messages.frames(pieces, last=last), len(pieces))

    def _expire(self) -> None:
        self._stop(DeadlineError(f"the query ran longer than {self._plan.seconds:g} s"))

    def _stop(self, reason: StreamkitError) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._handover.close(reason)
        if not self._stopping:
            self._stopping = True
            self._cancel()

    def _cancel(self) -> None:
        """Again and again, until the threads are back."""
        if self._threads:
            self._worker.cancel()
            if self._counter is not None:
                self._counter.cancel()
            self._loop.call_later(CANCEL_INTERVAL, self._cancel)

    def _count_beside(self) -> None:
        """Begin to count some time after a first batch is out and more follow: to know the end of
        what is quick helps nobody, and the first rows should not have to share the processor."""
        if self._counting is None and self._limits.count_seconds:
            self._counting = self._loop.call_later(_COUNT_AFTER, self._begin_counting)

    def _begin_counting(self) -> None:
        if not self._threads or self._stopping:
            return  # the query has ended, perhaps while its last batches wait for a slow reader
        sql = f"SELECT count(*) FROM ({self._plan.sql.rstrip().rstrip(';')}\n) AS counted"
        self._counter = StatementThread(
            Statement(self._source, sql, self._plan.parameters, self._limits.count_seconds),
            self._count,
            lambda error: self._in_loop(self._count_ended),  # a count that fails is no count
        )
        self._threads += 1
        self._counting = self._loop.call_later(self._limits.count_seconds, self._stop_counting)
        self._counter.start()

    def _stop_counting(self) -> None:
        """Hold the count to its time: not every database does so itself."""
        assert self._counter is not None
        self._counter.cancel()
        self._counting = self._loop.call_later(CANCEL_INTERVAL, self._stop_counting)

    # ---- in the worker threads ----

    def _work(self, result: Result) -> None:
        columns_wanted = self._plan.columns
        with closing(pieces_of(result, self._plan, self._limits)) as parts:
            for pieces, last in parts:
                columns = result.columns if columns_wanted else None
                self._handover.put(_Parcel(columns, pieces, last))
                columns_wanted = False
        if columns_wanted:
            self._handover.put(_Parcel(result.columns, [], False))

    def _worked(self, error: StreamkitError | None) -> None:
        self._handover.end(error)
        self._in_loop(self._thread_ended)

    def _count(self, result: Result) -> None:
        if result.arrow:
            batch = result.record_batch(1, 1)
            number = batch.column(0)[0].as_py() if batch is not None else 0
        else:
            number = result.rows(1, 1)[0][0]
        self._messages.total_rows = int(number)

    def _in_loop(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop was closed with the query still running
            self._loop.call_soon_threadsafe(function)

    # ---- on the loop again ----

    def _count_ended(self) -> None:
        assert self._counting is not None
        self._counting.cancel()
        self._thread_ended()

    def _thread_ended(self) -> None:
        self._threads -= 1
        if self._threads == 0:
            for timer in (self._timer, self._counting):
                if timer is not None:
                    timer.cancel()
            self._idle.set()
            self._on_end()
