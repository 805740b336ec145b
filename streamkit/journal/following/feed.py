"""The writing process's side: every commit goes to all that read, and their writes come in."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from streamkit.codec import decode, encode
from streamkit.config import WorkerLimits
from streamkit.errors import InternalError, InvalidArgumentError, LimitError, StreamkitError
from streamkit.generated.streamservice import JobReport
from streamkit.intercom import Intercom, parts_of
from streamkit.journal.base import JournalStatus, ProducerId, Pruned, Stream
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
    told_bounds,
    told_items,
)
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.journal.sqlite.requests import AppendRun, Committed

__all__ = ["Feed", "Follower"]

Reply = Callable[[Any], None]

_logger = logging.getLogger("streamkit.journal")


class Follower:
    """One reading process, as the writing one knows it. It ends by itself when that is gone."""

    def __init__(self, feed: Feed, limits: WorkerLimits) -> None:
        self._feed = feed
        self._full = self._missed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.jumps = 0
        """How often it fell behind and had to go on from the file."""
        self.line = Intercom(
            on_asked=self._asked,
            on_full=self._fill,
            on_empty=self._empty,
            on_lost=lambda: feed.leave(self),
            high=limits.behind_bytes,
        )

    def send(self, kind: int, value: Any) -> None:
        """Hand on a commit, unless too much waits already: then it reads the file instead."""
        if self._full:
            self._missed = True
        else:
            self.line.tell(kind, value)

    def _fill(self) -> None:
        self._full = True

    def _empty(self) -> None:
        self._full = False
        self._catch_up()

    def _catch_up(self) -> None:
        if self._missed:
            self._missed = False
            self.jumps += 1
            self.line.tell(JUMP, self._feed.bounds())

    def _asked(self, kind: int, value: Any, reply: Reply) -> None:
        """Begin at once what is to be stored: requests are stored in the order in which they come.
        What an answer promises has been told before it."""

        def answer(told: Any) -> None:
            self._catch_up()
            reply(told)

        try:
            work = self._feed.work(kind, value)
        except Exception as error:  # it would end the line, and with it the process over there
            answer(_told(error))
            return
        if isinstance(work, asyncio.Future):
            work.add_done_callback(partial(_answer_with, answer))
        else:
            task = asyncio.get_running_loop().create_task(_answered(work, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let the process go, and wait for what it has begun."""
        self.line.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Feed:
    """Everything that a journal commits, for any number of reading processes."""

    def __init__(self, journal: SqliteJournal, limits: WorkerLimits | None = None) -> None:
        self._journal = journal
        self._limits = limits or WorkerLimits()
        self._followers: dict[Follower, None] = {}
        journal.on_committed = self._committed
        journal.on_faults = self._faults
        journal.on_pinned = lambda: self._tell(PINNED, None)

    async def join(self, sock: socket.socket) -> Follower:
        """Feed the process that has the other end of a socket."""
        follower = Follower(self, self._limits)
        await follower.line.start(sock)
        journal = self._journal
        hello = (journal.path, journal.epoch, self.bounds(), journal.faults)
        follower.line.tell(HELLO, hello)  # nothing was committed since: none of this awaits
        self._followers[follower] = None
        return follower

    def leave(self, follower: Follower) -> None:
        """The process is gone."""
        self._followers.pop(follower, None)

    @property
    def followers(self) -> list[Follower]:
        """Those that are there."""
        return list(self._followers)

    async def close(self) -> None:
        """Let all of them go. The journal stays open."""
        await asyncio.gather(*(follower.close() for follower in list(self._followers)))

    def bounds(self) -> dict[str, tuple[int, int]]:
        """What can be read now, in the words of the line."""
        return told_bounds({stream: self._journal.bounds(stream) for stream in Stream})

    def work(self, kind: int, value: Any) -> asyncio.Future[Any] | Coroutine[Any, Any, Any]:
        """What a process asks for, begun where that needs no waiting."""
        journal = self._journal
        if kind == APPEND:
            name, told, size = value
            batches = [(rows, None if by is None else ProducerId(*by)) for rows, by in told]
            request = journal.rows_request(Stream(name), batches, size)
            return journal.submit_soon(request) or _submitted(journal, request)
        if kind == REPORT:
            reports, create = value
            return _encoded(
                journal.report_jobs([decode(JobReport, r) for r in reports], create=create)
            )
        if kind == CANCEL:
            return _encoded_one(journal.cancel_job(*value))
        if kind == PRUNE:
            return _pruned(journal.prune(dry_run=value))
        if kind == STATUS:
            return _plain_status(journal.status())
        return _nothing()

    def _committed(self, committed: list[Committed], oldest: dict[Stream, int]) -> None:
        if self._followers:
            told = (told_items(committed), {s.value: n for s, n in oldest.items()})
            for follower in self._followers:
                follower.send(FEED, told)

    def _faults(self) -> None:
        self._tell(FAULTS, self._journal.faults)

    def _tell(self, kind: int, value: Any) -> None:
        for follower in self._followers:
            follower.line.tell(kind, value)


async def _submitted(journal: SqliteJournal, request: AppendRun) -> list[Any]:
    """What came of each batch, also where all of them together are refused before anything is
    stored: for text that is none in one of them, or as too much for an entry of a log."""
    try:
        return await journal.submit(request)
    except (InvalidArgumentError, LimitError):
        if len(request.batches) == 1:
            raise
    outcomes: list[Any] = []
    size = request.size // len(request.batches)
    for batch in request.batches:
        one = journal.rows_request(request.stream, [batch], size)
        try:
            outcomes += await journal.submit(one)
        except (InvalidArgumentError, LimitError) as error:
            outcomes.append(error)
    return outcomes


async def _encoded(work: Coroutine[Any, Any, Any]) -> list[bytes]:
    return [encode(state) for state in await work]


async def _encoded_one(work: Coroutine[Any, Any, Any]) -> list[bytes]:
    return [encode(await work)]


async def _pruned(work: Coroutine[Any, Any, list[Pruned]]) -> list[tuple[str, str, int, int]]:
    return [(p.stream.value, p.pattern, p.records, p.bytes) for p in await work]


async def _plain_status(work: Coroutine[Any, Any, JournalStatus]) -> tuple[Any, ...]:
    return tuple(await work)


async def _nothing() -> None:
    pass


def _answer_with(answer: Reply, done: asyncio.Future[Any]) -> None:
    if done.cancelled():
        answer(InternalError("the request was given up"))
        return
    error = done.exception()
    if error is None:
        answer(_plain(done.result()))
    else:
        answer(_told(error))


async def _answered(work: Coroutine[Any, Any, Any], answer: Reply) -> None:
    try:
        answer(_plain(await work))
    except Exception as error:  # whoever asked must hear of it
        answer(_told(error))


def _plain(result: Any) -> Any:
    if not isinstance(result, list):
        return result
    return [parts_of(_told(one)) if isinstance(one, Exception) else one for one in result]


def _told(error: BaseException) -> StreamkitError:
    if isinstance(error, StreamkitError):
        return error
    _logger.error("a request of a worker failed", exc_info=error)
    return InternalError(f"the journal failed: {type(error).__name__}")
