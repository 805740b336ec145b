"""The journal with a copy on every server: writes go round by the log, reads are as they were.

A request is handed to the log and comes out of it, on every server at the same place. Only then is
it applied, here as everywhere, and answered by the server that was asked. What time brings is
decided by one server at a time, the holder of the lease, and written to the log like everything
else. Who holds it is decided by the log's order alone: a clock only makes others ask for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import Any

from streamkit.background import all_ended, place_of
from streamkit.config import JournalOptions, LogLimits
from streamkit.errors import (
    InvalidArgumentError,
    LimitError,
    PreconditionError,
    StoreError,
    StreamkitError,
)
from streamkit.journal.base import Bounds, Clock, JournalStatus, Pruned, Stream
from streamkit.journal.replicated.entries import (
    Claim,
    Leave,
    Nudge,
    Pass,
    State,
    read,
    settings_of,
)
from streamkit.journal.replicated.joining import joined, keep_snapshot
from streamkit.journal.replicated.log import Log, LogEntry
from streamkit.journal.replicated.outbox import Outbox
from streamkit.journal.replicated.store import Entered, Overdue, ReplicaStore, Verdict, place_in
from streamkit.journal.rules.silence import Steady
from streamkit.journal.sqlite.filed import bytes_of
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.journal.sqlite.requests import Request

__all__ = ["ReplicatedJournal"]

_REMEMBERED_STATES = 4096
_PRUNE_SECONDS = 30.0
_LEAVE_SECONDS = 2.0
_LOOK_SECONDS = 2.0
_TELL_SECONDS = 1.0
"""Less than a caller waits for the status, which tells what is here all the same."""

_logger = logging.getLogger("streamkit.journal")


class ReplicatedJournal(SqliteJournal):
    """One server's copy and its way to the log. Made by `follow`; owns the log."""

    def __init__(
        self,
        log: Log,
        path: str,
        options: JournalOptions,
        clock: Clock,
        steady: Steady,
        limits: LogLimits,
    ) -> None:
        self._store: Callable[[str, JournalOptions], ReplicaStore] = partial(
            ReplicaStore, life=log.life
        )
        super().__init__(path, options, clock, steady)
        self.log = log
        self._limits = limits
        self._steady = steady
        self._outbox = Outbox(log.append, limits, options.waiting_bytes)
        log.on_missed = self._outbox.missed
        self._working: set[asyncio.Task[None]] = set()
        self._progress = asyncio.Event()
        self._lost: StoreError | None = None
        self._place = 0
        self._before = self._chain = ""
        """How far entries were handed to the writer; `_state` is how far they are applied."""
        self._state = State(0, "", ())
        self._recognised = False
        """Whether the log was seen to be the one of which this copy has the beginning."""
        self._states: OrderedDict[int, State] = OrderedDict()
        self._holder = ""
        self._term = 0
        self._sign = steady()
        self._passes = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._answered = steady()
        self._unkept = 0
        """Bytes of the log since the last snapshot."""
        self._background += [
            self._recurring("following the log", self.measure),
            self._recurring("keeping a snapshot", self.keep),
        ]

    @classmethod
    async def follow(
        cls,
        log: Log,
        path: str,
        options: JournalOptions,
        clock: Clock,
        steady: Steady,
        limits: LogLimits | None = None,
    ) -> ReplicatedJournal:
        """Open the log and this server's copy, and catch up. Raises StoreError, in one line."""
        try:
            await log.open()
            await joined(log, path)
            journal = cls(log, path, options, clock, steady, limits or LogLimits())
        except BaseException:
            await log.close()
            raise
        try:
            await journal._catch_up()
        except BaseException:
            await journal._abandon()
            raise
        return journal

    async def _catch_up(self) -> None:
        _, oldest, following = await self._writer.open()
        found = await self._reads.run(place_in)
        self._place, self._before, self._chain = found.place, found.before, found.chain
        self._term, self._holder = found.term, found.holder
        status = await self.log.status()
        self._unkept = status.bytes
        last = status.last
        self._recognised = not found.place
        self._state = State(found.place, found.chain, ())
        bounds = {stream: Bounds(oldest[stream], following[stream] - 1) for stream in Stream}
        self._start(self.log.life, bounds)
        for work in (self._tail(), self._outbox.run(), self._outbox.repeat()):
            self._work(work)
        # Also where there is nothing to apply: it might be another log.
        await self._until(lambda: self._recognised and self._state.place >= last)
        if not self._holder:
            await self._claim()

    async def until_applied(self, place: int) -> None:
        """Wait until this server has applied the log up to a place."""
        await self._until(lambda: self._state.place >= place)

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait until what is applied has made something true. Raises what ended the journal."""
        while not reached():
            if self._lost is not None:
                raise self._lost
            self._progress.clear()
            await self._progress.wait()

    # ---- writing ----

    async def _write(self, request: Request) -> Any:
        self._check_open()
        return await (await self._outbox.enter(request))

    def _write_soon(self, request: Request) -> asyncio.Future[Any] | None:
        self._check_open()
        try:
            return self._outbox.enter_soon(request)
        except (InvalidArgumentError, LimitError):
            return None  # one by one, whoever is at fault is told

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the journal is closed")

    # ---- following ----

    async def _tail(self) -> None:
        async with aclosing(self.log.tail(self._place)) as entries:
            async for some in entries:
                for entry in some:
                    if entry.place == self._place:
                        self._recognise(entry)
                    else:
                        await self._take(entry)

    def _recognise(self, entry: LogEntry) -> None:
        """The log must be the one that was read before."""
        if _chained(self._before, entry.data) != self._chain:
            raise StoreError(
                f"the log {self.log.name} went another way: what stands at its place"
                f" {entry.place} is not what this server has applied",
                hint="an older copy of its files was put back and written to; see growing.md",
            )
        self._recognised = True
        self._progress.set()

    async def _take(self, entry: LogEntry) -> None:
        if entry.place != self._place + 1:
            raise StoreError(
                f"the log {self.log.name} goes on at {entry.place} after {self._place}",
                hint="start it again: it loads a snapshot",
            )
        origin, number, requests = read(entry.data, self._attendance.seen())
        before, chain = self._chain, _chained(self._chain, entry.data)
        entered = Entered(
            now=requests[0].now if requests else self._clock(),
            records=sum(request.records for request in requests),
            size=len(entry.data),
            place=entry.place,
            before=before,
            chain=chain,
            origin=origin.hex(),
            number=number,
            requests=requests,
        )
        future = await self._writer.enter(entered)
        self._place, self._before, self._chain = entry.place, before, chain
        self._unkept += len(entry.data)
        future.add_done_callback(partial(self._applied, entered))

    def _applied(self, entered: Entered, future: asyncio.Future[Verdict]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._end(error if isinstance(error, StoreError) else StoreError(str(error)))
            return
        verdict = future.result()
        self._state = verdict.state
        self._states[verdict.state.place] = verdict.state
        if len(self._states) > _REMEMBERED_STATES:
            self._states.popitem(last=False)
        if (verdict.holder, verdict.term) != (self._holder, self._term):
            self._holder, self._term = verdict.holder, verdict.term
            self._sign = self._steady()
        outcomes = entered.requests if verdict.accepted else None
        self._outbox.settle(entered.origin, entered.number, verdict.expected, outcomes)
        for request in outcomes or ():
            self._notice(request)
        if verdict.full:
            self._hurry()
        self._progress.set()

    def _notice(self, request: Request) -> None:
        """What requests about the log itself mean for this server."""
        match request:
            case Pass(error=None):
                self._sign = self._steady()
                if not request.result:
                    self._passes += 1
                self._compare(request.state)
            case Nudge():
                self._hurry()

    def _compare(self, state: State | None) -> None:
        own = None if state is None else self._states.get(state.place)
        if own is not None and own != state:
            self._end(
                StoreError(
                    f"this server's copy is not what the others have at place {own.place}",
                    hint="stop it, remove its --data, and start it again",
                )
            )

    # ---- what time brings ----

    @property
    def holds(self) -> bool:
        """Whether this server has the lease."""
        return self._holder == self._outbox.origin

    def _hurry(self) -> None:
        if self.holds:
            self._background[0].hurry()

    async def _sweep(self, now: datetime, seen: float) -> None:
        if self._closed:
            return
        if self._lost is not None:
            raise self._lost
        if not self.holds:
            if self._holder and self._steady() - self._sign < self._limits.lease:
                return
            await self._claim()
        with suppress(PreconditionError):  # the lease is somebody else's since
            while self.holds and await self._pass(now, seen):
                pass

    async def _pass(self, now: datetime, seen: float) -> bool:
        lapses = await self._writer.write(Overdue(now=now, seen=seen))
        more: bool = await self._write(
            Pass(
                now=now,
                term=self._term,
                aged=self._believed(),
                lapses=lapses,
                state=self._state if self._state.following else None,
            )
        )
        return more

    async def _claim(self) -> None:
        settings = settings_of(self._options)
        await self._write(Claim(now=self._clock(), term=self._term + 1, settings=settings))

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        found = await super().prune(dry_run=True)
        if dry_run:
            return found
        await self.sweep()
        if not self.holds:
            passes = self._passes
            await self._write(Nudge(now=self._clock()))
            try:
                async with asyncio.timeout(_PRUNE_SECONDS):
                    await self._until(lambda: self._passes > passes)
            except TimeoutError:
                raise StoreError("the server that removes what is old does not answer") from None
        return found

    async def keep(self, *, early: bool = False) -> None:
        """Make a snapshot, if this server is to and it is time, and let go of the log before it.
        Runs by itself every second; `early` does not wait until the log has grown."""
        if not self.holds or self._lost is not None:
            return
        if not early and self._unkept < max(self._limits.snapshot_bytes, bytes_of(self.path) // 2):
            return
        self._unkept = 0
        await keep_snapshot(self.log, self.path, self._limits)

    # ---- how far behind ----

    async def measure(self) -> None:
        """Whether this server has what the log has. While it is too far behind, or cannot tell,
        it takes no writes. Runs by itself every second; a test with its own clock calls it."""
        if self._lost is not None:
            raise self._lost
        try:
            last = (await self.log.status(_LOOK_SECONDS)).last
        except StoreError as error:
            if self._steady() - self._answered < self._limits.lag:
                return
            self._refuse(error)
            raise
        now = self._answered = self._steady()
        self._marks.append((now, last))
        while self._marks and self._marks[0][1] <= self._state.place:
            self._marks.popleft()
        lag = now - self._marks[0][0] if self._marks else 0.0
        if lag > self._limits.lag:
            behind = last - self._state.place
            late = StoreError(
                f"this server is {behind} entries and {lag:.0f} s behind the log",
                hint="ask another server, or try again in a moment",
            )
            self._refuse(late)
            raise late
        self._outbox.refusal = self._lost

    def _refuse(self, error: StoreError) -> None:
        if self._outbox.refusal is None:
            self._outbox.refusal = error
            self._outbox.give_up(
                StoreError(
                    "the log did not take this in time; whether it is stored is not known",
                    hint="repeat it: with a producer's number it is stored once",
                )
            )

    # ---- the end ----

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreError):
            self._end(error)
        elif error is not None:
            _logger.error("following the log failed: %s", place_of(error), exc_info=error)
            self._end(StoreError(f"following the log failed: {type(error).__name__}"))

    async def _stop_working(self) -> None:
        await all_ended(self._working)

    def _end(self, error: StoreError) -> None:
        """Nothing is applied any more: whoever serves this journal has to leave."""
        if self._lost is not None:
            return
        self._lost = self._outbox.refusal = error
        self._outbox.give_up(error)
        self._progress.set()
        if self.on_lost is not None:
            self.on_lost(error)

    @property
    def faults(self) -> tuple[str, ...]:
        return super().faults if self._lost is None else (self._lost.message,)

    async def status(self) -> JournalStatus:
        found = await super().status()
        told = ["replicated"]
        try:
            log = await self.log.status(_TELL_SECONDS)
            behind = max(0, log.last - self._state.place)
            told += [f"{behind} entries behind the log", *log.notes]
        except StoreError:
            told.append("the log does not answer")
        if self.holds:
            told.append("this server decides what time brings")
        return found._replace(url=self.log.url, durability=", ".join(told))

    async def close(self) -> None:
        if self._closed:
            return
        await self._stop_background()
        if self.holds and self._outbox.refusal is None:
            # The others need not wait for its silence then.
            with suppress(StreamkitError, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._write(Leave(now=self._clock(), term=self._term))
        self._closed = True
        if self._outbox.refusal is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.lag):
                    await self._outbox.drain()
        self._outbox.refusal = StoreError("the journal is closed")
        self._outbox.give_up(self._outbox.refusal)
        await self._stop_working()
        with suppress(StoreError):  # of a store that is broken, which was told
            await self._writer.drain()
        self._end_readers()
        await self._release()

    async def _abandon(self) -> None:
        self._closed = True
        await self._stop_background()
        await self._stop_working()
        await self._release()

    async def _release(self) -> None:
        await super()._release()
        await self.log.close()


def _chained(chain: str, data: bytes) -> str:
    """The digest of a log up to an entry, from that of the log before it."""
    digest = blake2b(chain.encode(), digest_size=16)
    digest.update(data)
    return digest.hexdigest()
