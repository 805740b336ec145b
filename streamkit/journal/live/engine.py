"""What all engines share: three rings, and readers that walk from the store to the present.

An engine adds how records are stored and how stored ones are found again.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from streamkit.background import Recurring
from streamkit.config import JournalOptions, Retention
from streamkit.errors import InvalidArgumentError, PreconditionError
from streamkit.journal.base import (
    Bounds,
    Clock,
    Delivery,
    Item,
    Items,
    Journal,
    Record,
    Selector,
    Start,
    Stream,
    Tally,
)
from streamkit.journal.live.reader import Manner, Page, Reader
from streamkit.journal.live.ring import Ring
from streamkit.journal.rules.silence import Attendance, BelievedClock, Steady

__all__ = ["EngineJournal"]

_SWEEP_INTERVAL = 1.0

_logger = logging.getLogger("streamkit.journal")


class EngineJournal(Journal):
    """The reading half of a journal; `_start` is called once its epoch and bounds are known."""

    def __init__(self, options: JournalOptions, clock: Clock, steady: Steady) -> None:
        self._options = options
        self._clock = clock
        self._attendance = Attendance(steady)
        self._believed = BelievedClock(clock, steady, options.retention.max_age)
        self._oldest: dict[Stream, int] = {}
        self._rings: dict[Stream, Ring[Record]] = {}
        self._background = [self._recurring("sweeping the journal", self.sweep)]

    @property
    def tally(self) -> Tally:
        rings = tuple(self._rings.values())
        return Tally(sum(ring.gaps for ring in rings), sum(ring.behind for ring in rings))

    def retain(self, retention: Retention) -> None:
        self._options = replace(self._options, retention=retention)
        self._believed.max_age = retention.max_age

    def _start(self, epoch: str, bounds: dict[Stream, Bounds]) -> None:
        self.epoch = epoch
        for stream, (oldest, newest) in bounds.items():
            self._oldest[stream] = oldest
            self._rings[stream] = Ring(
                epoch,
                newest,
                max_records=self._options.ring_records,
                max_bytes=self._options.ring_bytes,
                max_keys=self._options.followed_keys,
                max_tokens=self._options.pattern_tokens,
            )
        for work in self._background:
            work.start()

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(f"{work.name}: {work.fault}" for work in self._background if work.fault)

    def _recurring(self, name: str, work: Callable[[], Awaitable[object]]) -> Recurring:
        return Recurring(
            name, work, interval=_SWEEP_INTERVAL, logger=_logger, on_change=self._faults_changed
        )

    def _faults_changed(self) -> None:
        if self.on_faults is not None:
            self.on_faults()

    def bounds(self, stream: Stream) -> Bounds:
        return Bounds(self._oldest[stream], self._rings[stream].newest)

    def subscribers(self, stream: Stream) -> int:
        return self._rings[stream].readers

    def read(
        self,
        selector: Selector,
        start: Start,
        *,
        follow: bool,
        heartbeat: float | None = None,
        latest: bool = False,
        tell_loss: bool = False,
    ) -> AsyncGenerator[Delivery[Record], None]:
        ring = self._rings[selector.stream]
        newest = ring.newest  # "new" means from this call on, whenever the first batch is asked for

        async def begin() -> Page[Record]:
            return await self._begin(selector, start, newest)

        async def history(selector: Selector, after: int, end: int) -> Page[Record]:
            return await self._page(selector, after, end)

        manner = Manner(heartbeat=heartbeat, latest=latest, tell_loss=tell_loss)
        reader = Reader(ring, history, selector, manner)
        return reader.live(begin) if follow else reader.stored(begin)

    async def _begin(self, selector: Selector, start: Start, newest: int) -> Page[Record]:
        """Where a reader starts, and records that it gets before anything after that place."""
        oldest = self._oldest[selector.stream]
        items: Items[Record] = Items()
        if start.after is not None:
            self._check_position(start.after.epoch, start.after.sequence, selector.stream)
            place = start.after.sequence
        elif start.all:
            place = oldest - 1
        elif start.since is not None:
            place = await self._place_since(selector.stream, start.since, newest)
        elif start.last is not None:
            if not 0 <= start.last < 1 << 63:
                raise InvalidArgumentError(
                    f"last must not be negative or 2^63 and more, not {start.last}"
                )
            place = newest
            if start.last:
                first = await self._first_of_last(selector, start.last, newest)
                place = newest if first is None else first - 1
                if first is None:
                    items = await self._state_of_job(selector)
        else:
            place = newest
        return Page(items, place, oldest)

    def _check_position(self, epoch: str, sequence: int, stream: Stream) -> None:
        if epoch != self.epoch:
            raise PreconditionError(
                f"position {sequence} belongs to another journal (epoch {epoch or 'none'})",
                hint=f"this journal's epoch is {self.epoch}: start without a position",
            )
        newest = self._rings[stream].newest
        if sequence > newest:
            raise PreconditionError(
                f"position {sequence} is ahead of this journal, whose newest is {newest}",
                hint="the journal lost its end, or the position is wrong: start without one",
            )

    async def _state_of_job(self, selector: Selector) -> Items[Record]:
        """The present state of a job whose events retention removed."""
        if selector.stream is not Stream.JOBS or len(selector.patterns) != 1:
            return Items()
        progress = await self.job(selector.patterns[0])
        if progress is None:
            return Items()
        entry: Item[Record] = Item(progress.sequence, progress.job_id, 0, progress)
        return Items([entry])

    async def sweep(self) -> None:
        """Apply what time alone brings: stalled and lost jobs, and retention.

        Runs by itself every second; a test with its own clock calls it.
        """
        await self._sweep(self._clock(), self._attendance.look())

    async def _stop_background(self) -> None:
        await asyncio.gather(*(work.stop() for work in self._background))

    def _end_readers(self) -> None:
        """End all readers; they still get what is in memory."""
        for ring in self._rings.values():
            ring.close()

    @abstractmethod
    async def _sweep(self, now: datetime, seen: float) -> None: ...

    @abstractmethod
    async def _page(self, selector: Selector, after: int, end: int) -> Page[Record]:
        """Stored records that the selector wants, after one sequence, up to a stored one."""

    @abstractmethod
    async def _first_of_last(self, selector: Selector, count: int, newest: int) -> int | None:
        """The sequence of the first of the last `count` wanted records up to `newest`."""

    @abstractmethod
    async def _place_since(self, stream: Stream, since: datetime, newest: int) -> int:
        """The sequence before the first record that was recorded at or after a time."""
