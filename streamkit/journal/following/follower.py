"""The journal of a process that reads beside the one that writes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from streamkit.codec import decode, encode
from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError, StoreError
from streamkit.generated.streamservice import JobProgress, JobReport, LogEntry, Update
from streamkit.intercom import Intercom, error_from
from streamkit.journal.base import (
    Appended,
    Clock,
    JournalStatus,
    ProducerId,
    Pruned,
    Record,
    Selector,
    Start,
    Stream,
)
from streamkit.journal.following.words import (
    APPEND,
    CANCEL,
    FAULTS,
    FEED,
    HELLO,
    JUMP,
    PINNED,
    PRUNE,
    REPORT,
    STATUS,
    SYNC,
    bounds_of,
    items_of,
)
from streamkit.journal.live.reader import Page
from streamkit.journal.records.items import Row, log_rows, update_rows
from streamkit.journal.records.weights import weight_of
from streamkit.journal.rules.silence import Steady
from streamkit.journal.sqlite.filed import FileJournal

__all__ = ["FollowerJournal"]

Convert = Callable[[Any], Any]


class FollowerJournal(FileJournal):
    """Rings of its own, history from the same file, writes by the process that owns it.

    Made by `join`. What was acknowledged to anybody is seen by every read that begins later, in
    whichever process. `on_owner_lost` is called when the other process is gone: nothing can be
    written then.
    """

    on_owner_lost: Callable[[], None] | None = None

    def __init__(
        self, path: str, options: JournalOptions, clock: Clock, steady: Steady, line: Intercom
    ) -> None:
        super().__init__(path, options, clock, steady)
        self._line = line
        self._background.clear()  # what time brings is the other's to apply
        self._told_faults: tuple[str, ...] = ()
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None

    @classmethod
    async def join(
        cls, sock: socket.socket, options: JournalOptions, clock: Clock, steady: Steady
    ) -> FollowerJournal:
        """Open the journal whose `Feed` has the other end of a socket. ConnectError if that is
        gone."""
        greeted: asyncio.Future[FollowerJournal] = asyncio.get_running_loop().create_future()

        def told(kind: int, value: Any) -> None:
            if kind == HELLO:
                path, epoch, bounds, faults = value
                journal = cls(path, options, clock, steady, line)
                journal._told_faults = faults
                journal._start(epoch, bounds_of(bounds))
                greeted.set_result(journal)
            else:
                greeted.result()._told(kind, value)

        def lost() -> None:
            if not greeted.done():
                greeted.set_exception(StoreError("the process that owns the store is gone"))
                return
            journal = greeted.result()
            if journal.on_owner_lost is not None and not journal._closed:
                journal.on_owner_lost()

        line = Intercom(on_told=told, on_lost=lost)
        await line.start(sock)
        return await greeted

    @property
    def faults(self) -> tuple[str, ...]:
        return self._told_faults

    async def status(self) -> JournalStatus:
        return JournalStatus(*await self._line.ask(STATUS, None))

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        found = await self._line.ask(PRUNE, dry_run)
        return [Pruned(Stream(name), *rest) for name, *rest in found]

    # ---- what is told ----

    def _told(self, kind: int, value: Any) -> None:
        if kind == FEED:
            groups, oldest = value
            for name, told in groups:
                stream = Stream(name)
                ring = self._rings[stream]
                items = items_of(stream, told, ring.newest)
                if items:
                    ring.push(items)
            self._oldest.update((Stream(name), number) for name, number in oldest.items())
        elif kind == JUMP:
            for stream, (first, newest) in bounds_of(value).items():
                self._rings[stream].skip(newest)
                self._oldest[stream] = first
        elif kind == FAULTS:
            self._told_faults = value
            self._faults_changed()
        elif kind == PINNED and self.on_pinned is not None:
            self.on_pinned()

    # ---- what is asked ----

    async def append_updates(
        self, updates: Sequence[Update], producer: ProducerId | None = None
    ) -> Appended:
        rows = update_rows(updates, 0, self._clock())
        return await self._append(Stream.UPDATES, rows, producer, weight_of(updates))

    def append_runs_soon(
        self, batches: Sequence[tuple[Sequence[Update], ProducerId | None]]
    ) -> asyncio.Future[list[tuple[int, int] | Exception]] | None:
        if self._turn.locked() or self._is_full() or self._closed:
            return None
        now, told, size = self._clock(), [], 0
        try:
            for updates, producer in batches:
                told.append((update_rows(updates, 0, now), _plain(producer)))
                size += weight_of(updates)
        except InvalidArgumentError:
            return None  # one by one, whoever is at fault is told
        return self._ask(APPEND, (Stream.UPDATES.value, told, size), size, _outcomes)

    async def append_logs(
        self, entries: Sequence[LogEntry], producer: ProducerId | None = None
    ) -> Appended:
        rows = log_rows(entries, 0, self._clock())
        return await self._append(Stream.LOGS, rows, producer, weight_of(entries))

    async def _append(
        self, stream: Stream, rows: Sequence[Row], producer: ProducerId | None, size: int
    ) -> Appended:
        value = (stream.value, [(rows, _plain(producer))], size)
        (outcome,) = await self._write(APPEND, value, size, _outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return Appended(*outcome)

    async def report_jobs(
        self, reports: Sequence[JobReport], *, create: bool = False
    ) -> list[JobProgress]:
        value = ([encode(report) for report in reports], create)
        states: list[JobProgress] = await self._write(REPORT, value, weight_of(reports), _states)
        return states

    async def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        states: list[JobProgress] = await self._write(
            CANCEL, (job_id, reason), len(reason), _states
        )
        return states[0]

    async def _write(self, kind: int, value: Any, size: int, convert: Convert) -> Any:
        async with self._turn:  # gives turns in order, and one that is free at once
            while self._is_full() and not self._closed:
                self._room = asyncio.get_running_loop().create_future()
                await self._room
            if self._closed:
                raise StoreError("the journal is closed")
            future = self._ask(kind, value, size, convert)
        return await future

    def _ask(self, kind: int, value: Any, size: int, convert: Convert) -> asyncio.Future[Any]:
        self._waiting += size
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked = self._line.ask(kind, value)
        asked.add_done_callback(partial(self._answered, answer, size, convert))
        return answer

    def _answered(
        self, answer: asyncio.Future[Any], size: int, convert: Convert, asked: asyncio.Future[Any]
    ) -> None:
        self._waiting -= size
        if not self._is_full() and self._room is not None and not self._room.done():
            self._room.set_result(None)
        error = asked.exception()
        if answer.done():
            return  # whoever asked has gone; what was asked is done all the same
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(convert(asked.result()))

    def _is_full(self) -> bool:
        return self._waiting >= self._options.waiting_bytes  # one request is always taken

    async def _sweep(self, now: datetime, seen: float) -> None:
        await self._line.ask(PRUNE, False)

    async def _begin(self, selector: Selector, start: Start, newest: int) -> Page[Record]:
        """What was acknowledged before may still be on its way to this process."""
        ring, after = self._rings[selector.stream], start.after
        if start != _NEW and (after is None or after.sequence > ring.newest):
            await self._line.ask(SYNC, None)
            newest = ring.newest
        return await super()._begin(selector, start, newest)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._end_readers()
        self._line.close()
        self._reads.close()


_NEW = Start()


def _plain(producer: ProducerId | None) -> tuple[str, int] | None:
    return None if producer is None else (producer.id, producer.sequence)


def _outcomes(told: Any) -> list[tuple[int, int] | Exception]:
    return [outcome if len(outcome) == 2 else error_from(outcome) for outcome in told]


def _states(told: Any) -> list[JobProgress]:
    return [decode(JobProgress, data) for data in told]
