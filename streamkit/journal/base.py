"""What a journal is: three ordered, durable, resumable streams of records.

The engines (memory, sqlite) implement `Journal`; handlers and tests use nothing else. Records are
the generated messages themselves. Each stream counts its own sequence from 1, contiguous over all
keys: it never goes back and is never reused, not even after everything was removed.

An engine is owned by one event loop; every method is called on it.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, Generic, NamedTuple, Self, TypeVar

from streamkit.config import Retention
from streamkit.errors import StoreError, UnimplementedError
from streamkit.framing import Framed
from streamkit.generated.streamservice import JobProgress, JobReport, LogEntry, Update
from streamkit.histogram import Histogram
from streamkit.patterns import Exact, Globs, Patterns, Topics, is_glob, is_topic_pattern
from streamkit.terms import TERMINAL, Position, Stream

__all__ = [
    "TERMINAL",
    "Appended",
    "Bounds",
    "Clock",
    "Delivery",
    "Item",
    "Items",
    "JobPage",
    "Journal",
    "JournalStatus",
    "Loss",
    "Position",
    "ProducerId",
    "Pruned",
    "Record",
    "Selector",
    "Start",
    "Stream",
    "new_epoch",
    "now",
]

Record = Update | LogEntry | JobProgress

T = TypeVar("T")

Clock = Callable[[], datetime]
"""Injected for tests: the current time, aware, UTC."""


class Bounds(NamedTuple):
    """The oldest and newest sequence of a stream that can be read; empty: oldest = newest + 1."""

    oldest: int
    newest: int


class ProducerId(NamedTuple):
    """Who writes, and the writer's own count of its requests, from 1."""

    id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Appended:
    """A batch was stored under the sequences first .. first + count - 1."""

    first: int
    count: int


class Item(Generic[T]):
    """One record at its place and, once somebody needed it, its frame.

    `frame` holds the encoded, length-prefixed record; it is made once by the first reader and
    shared by all others, so a record is never changed after it was given out. `size` is about
    what the record costs in memory.
    """

    __slots__ = ("frame", "key", "message", "rank", "sequence", "size")

    def __init__(self, sequence: int, key: str, rank: int, message: T, size: int = 256) -> None:
        self.sequence = sequence
        self.key = key
        self.rank = rank
        self.message = message
        self.size = size
        self.frame: bytes | None = None

    def __repr__(self) -> str:
        return f"<Item {self.sequence} {self.key!r} rank={self.rank}>"


class Items(list[Item[T]]):
    """The items of a delivery and, once a reader needed it, their joined frames."""

    __slots__ = ("framed", "joined")

    def __init__(self, items: Iterable[Item[T]] = ()) -> None:
        super().__init__(items)
        self.joined: bytes | None = None
        self.framed: Framed | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """What a reader wants: keys by pattern, ranks from `min_rank` up. No pattern: every key.

    For updates a pattern is a topic whose tokens are divided by dots: "*" stands for one token,
    a final ">" for one or more. For logs "*" inside a service name stands for any characters.
    For jobs patterns are exact ids.
    """

    stream: Stream
    patterns: tuple[str, ...] = ()
    min_rank: int = 0
    _compiled: Patterns[bool] | None = field(default=None, init=False, compare=False, repr=False)

    def matches(self, key: str, rank: int = 0) -> bool:
        """Whether a record is wanted."""
        if rank < self.min_rank:
            return False
        return not self.patterns or self._patterns().matches(key)

    def exact(self) -> bool:
        """Whether the patterns are plain keys, so that a reader can be found by its keys."""
        return bool(self.patterns) and not any(map(_IS_PATTERN[self.stream], self.patterns))

    def every_key(self) -> bool:
        """Whether no key is left out, so that keys need not be looked at."""
        every = {Stream.UPDATES: ">", Stream.LOGS: "*"}.get(self.stream)
        return not self.patterns or every in self.patterns

    def _patterns(self) -> Patterns[bool]:
        """Compiled when they are first needed, and once."""
        compiled = self._compiled
        if compiled is None:
            compiled = Exact[bool]() if self.exact() else patterns_of(self.stream)
            for pattern in self.patterns:
                compiled.add(pattern, True)
            object.__setattr__(self, "_compiled", compiled)
        return compiled


def patterns_of(stream: Stream) -> Patterns[Any]:
    """An empty set of a stream's patterns."""
    return _PATTERNS[stream]()


_PATTERNS: dict[Stream, type[Patterns[Any]]] = {
    Stream.UPDATES: Topics,
    Stream.LOGS: Globs,
    Stream.JOBS: Exact,
}
_IS_PATTERN: dict[Stream, Callable[[str], bool]] = {
    Stream.UPDATES: is_topic_pattern,
    Stream.LOGS: is_glob,
    Stream.JOBS: lambda _: False,
}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader starts; exactly one is set. The default is: only what is new."""

    after: Position | None = None
    last: int | None = None
    since: datetime | None = None
    all: bool = False


class Loss(NamedTuple):
    """The records first .. last are gone: retention removed them before they were read."""

    first: int
    last: int


class Delivery(NamedTuple, Generic[T]):
    """What a reader gets at once: wanted items in order, everything up to `position` covered.

    No items and no loss is a heartbeat: nothing wanted happened up to `position`. `skipped` is
    set with the policy "latest" only: per key the records passed over before the item given.
    Readers of the same records share one delivery: neither it nor its items may be changed.
    """

    items: Sequence[Item[T]]
    position: Position
    loss: Loss | None = None
    skipped: dict[str, int] | None = None


class Pruned(NamedTuple):
    """What retention removes of one stream: by the rule for a pattern, or "" of all of it."""

    stream: Stream
    pattern: str
    records: int
    bytes: int


class Tally(NamedTuple):
    """What a journal has counted since it was opened, for figures."""

    gaps: int = 0
    """Readers that were told of a gap, or ended by one."""
    catching_up: int = 0
    """Readers that are reading from far back, now."""
    commits: Histogram | None = None
    """Seconds that each transaction took; None: there are none."""
    removed: Mapping[tuple[str, str], int] = {}
    """Records that retention removed, by stream and by why: age, size, rule."""
    duplicates: int = 0
    """Requests that a producer repeated, and that were answered and not stored again."""


class JobPage(NamedTuple):
    """Some jobs of a list, and whether there are more."""

    jobs: list[JobProgress]
    more: bool


class JournalStatus(NamedTuple):
    """Figures for `streamkit status`."""

    url: str
    durability: str
    bytes: int
    faults: tuple[str, ...] = ()
    """What goes wrong beside the calls now, one line each."""


class Journal(ABC):
    """Three streams and the state of every job. Async context manager: leaving it closes it."""

    epoch: str
    """Names this journal's life; a new store has a new one."""
    on_faults: Callable[[], None] | None = None
    """Called on the loop when `faults` has changed."""
    on_pinned: Callable[[], None] | None = None
    """Called on the loop when somebody's long read keeps the store from giving its space back."""
    on_lost: Callable[[StoreError], None] | None = None
    """Called on the loop, once, when the journal has ended by itself: it has to be opened anew."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What goes wrong beside the calls now, one line each; empty when all is well."""
        return ()

    @abstractmethod
    async def append_updates(
        self, updates: Sequence[Update], producer: ProducerId | None = None
    ) -> Appended:
        """Store all or none, in order, and return once they are durable.

        A missing timestamp is set to now. A producer's repeated request stores nothing and
        returns the first one's answer, also after a restart. After cancellation the batch may
        or may not be stored, never in part. Raises StoreError.
        """

    def append_runs_soon(
        self, batches: Sequence[tuple[Sequence[Update], ProducerId | None]]
    ) -> asyncio.Future[list[tuple[int, int] | Exception]] | None:
        """As `append_updates` for each of them, in their order, begun at once and without a task.
        The result has what came of each: first sequence and count, or the error. None where that
        cannot be: there is something to wait for before, or the journal has no such way."""
        return None

    @abstractmethod
    async def append_logs(
        self, entries: Sequence[LogEntry], producer: ProducerId | None = None
    ) -> Appended:
        """As `append_updates`. Levels other than debug, info, warn and error must not come."""

    @abstractmethod
    async def report_jobs(
        self, reports: Sequence[JobReport], *, create: bool = False
    ) -> list[JobProgress]:
        """Apply each report to its job and return the states after them, in order.

        Progress does not run backwards and a terminal status stays: such a report returns the
        stored state, whose sequence is then an older one. `create` raises AlreadyExistsError
        for a known job, and nothing of the batch is stored. A report with a producer that was
        applied before is a no-op.
        """

    @abstractmethod
    async def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        """Ask the worker to stop; a pending job is cancelled at once. Raises NotFoundError."""

    @abstractmethod
    async def job(self, job_id: str) -> JobProgress | None:
        """The stored state of one job."""

    @abstractmethod
    async def jobs(
        self,
        *,
        statuses: Sequence[str] = (),
        since: datetime | None = None,
        limit: int = 100,
        ids: Sequence[str] = (),
        before: int | None = None,
        max_bytes: int = 1 << 62,
    ) -> JobPage:
        """The last changed jobs, newest first; with `ids`, patterns with "*", only those.

        `before`: only jobs whose last change has a smaller sequence. The page ends at the limit,
        or before its messages are larger than `max_bytes`; one job is always in it, if there is
        one.
        """

    @abstractmethod
    def bounds(self, stream: Stream) -> Bounds:
        """What can be read now. Never waits."""

    @abstractmethod
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
        """Read wanted records in order: what is stored from `start` on, then, if `follow`, live.

        The first batch is given at once, possibly empty: its position is the place actually
        started from (the position before the first record to come). There is neither a gap nor
        a repetition between history and live. A reader that falls behind memory is served from
        the store until it has caught up; writers never wait for it. What retention removed before
        it was read is a `Loss` with `tell_loss`, else StreamGapError. `heartbeat`: after so many
        quiet seconds an empty batch. A position of another epoch raises PreconditionError.

        "since" means recorded since: by the journal's clock, and where several records share a
        second, by their own timestamps. `latest` treats history as waiting, too. For one exact
        job `last` gives at least its present state, even if its events are gone. A reader ends
        by itself when it does not follow and has read what there was, or when the journal is
        closed.

        Close the iterator (`contextlib.aclosing`) to end the subscription.
        """

    @abstractmethod
    def subscribers(self, stream: Stream) -> int:
        """How many following readers the stream has. Never waits."""

    def lag(self, place: tuple[str, str, int], pending: int) -> int:
        """By how many records a reader is behind that was handed a stream (its name, epoch) up to
        a sequence. Never waits.

        Nothing is `pending` for one that has taken all that it asked for, so only then does the
        distance say anything.
        """
        stream, _, sequence = place
        return max(0, self.bounds(Stream(stream)).newest - sequence) if pending else 0

    @property
    def tally(self) -> Tally:
        """What was counted so far. May be asked in any thread."""
        return Tally()

    def count_jobs(self) -> dict[str, int]:
        """How many jobs there are, by status. May be asked in any thread, and waits for a disk."""
        return {}

    @abstractmethod
    async def status(self) -> JournalStatus:
        """Figures for a person."""

    async def copy(self) -> BinaryIO:
        """All that is stored now, as an open file that nobody else sees: close it. Raises
        StoreError, and UnimplementedError for a journal that is kept in no file."""
        raise UnimplementedError("this journal is kept in no file")

    @abstractmethod
    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        """Apply what time brings, to the end, and return what retention removes; with `dry_run`
        only say what it would. Goes on by itself, too, about every second. Raises StoreError."""

    def retain(self, retention: Retention) -> None:
        """From now on keep what this says. Raises UnimplementedError where only a new start
        changes that."""
        raise UnimplementedError("this journal keeps what it was opened with")

    @abstractmethod
    async def close(self) -> None:
        """End all readers, store what was accepted, release the store. May be called twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


def new_epoch() -> str:
    """A name for a journal's life that no other journal has."""
    return secrets.token_hex(8)
