"""What a Client hands out: each wraps its asynchronous twin and the loop that it lives on."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast

from streamkit.client.blocking.portal import Portal
from streamkit.client.reading.iteration import Iteration
from streamkit.client.reading.query import Query
from streamkit.client.reading.streams import Record as StreamRecord
from streamkit.client.reading.streams import RecordStream, Request
from streamkit.client.reading.values import RowValues
from streamkit.client.writing.job import JobHandle
from streamkit.client.writing.outbox import Record
from streamkit.client.writing.pump import Pump
from streamkit.client.writing.writers import LogWriter, Publisher, make_update
from streamkit.generated.streamservice import QueryResult
from streamkit.terms import Position

if TYPE_CHECKING:
    import pyarrow

__all__ = ["SyncJobBase", "SyncLogWriter", "SyncPublisher", "SyncQueryBase", "SyncStream"]


class _Twin(Protocol):
    """An asynchronous context manager."""

    async def __aenter__(self) -> object: ...

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[None]: ...


TwinT = TypeVar("TwinT", bound=_Twin)
Item = TypeVar("Item")


class _Handle(Generic[TwinT]):
    """A context manager around an asynchronous one, which is made on its own loop."""

    def __init__(self, portal: Portal, make: Callable[[], TwinT]) -> None:
        self._portal = portal

        async def made() -> TwinT:
            return make()

        self._twin = portal.run(made())

    def __enter__(self) -> Self:
        self._portal.run(self._enter())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._portal.out_of_reach:  # there, nobody could be told of anything
            self._portal.run(self._exit(exc_type, exc, traceback))

    async def _enter(self) -> None:
        await self._twin.__aenter__()

    async def _exit(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._twin.__aexit__(exc_type, exc, traceback)


class SyncStream(_Handle[RecordStream[Request, StreamRecord]], Generic[Request, StreamRecord]):
    """Records of the journal, in order, each once. Breaking out of a bare `for` ends the call."""

    _owned = False

    def __enter__(self) -> Self:
        self._owned = True
        return super().__enter__()

    @property
    def position(self) -> Position | None:
        """After the last record handed out; starts a later stream."""
        return self._twin.position

    def receive(self) -> list[StreamRecord]:
        """All the records that are here, at least one; [] once the stream has ended."""
        return self._portal.run(self._twin.receive())

    def close(self) -> None:
        """End the call at once."""
        self._portal.run(self._twin.close())

    def __iter__(self) -> Iterator[StreamRecord]:
        try:
            while True:
                yield from self._twin.rest
                if not self._portal.run(self._twin.fill()):
                    return
        finally:
            if not self._owned:
                self._portal.finish(self._twin.close())


class SyncQueryBase(_Handle[Query]):
    """What of a query is iterated over."""

    def batches(self) -> Iterator[QueryResult]:
        """The messages as the server made them."""
        return self._iterate(self._twin.batches)

    def record_batches(self) -> Iterator[pyarrow.RecordBatch]:
        """The result as Arrow record batches; see Query."""
        return self._iterate(self._twin.record_batches)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict per row of Python values, as the columns' types say; see Query."""
        return map(self._values("rows").named, self.texts())

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """As `rows`, in the order of the columns and without their names."""
        return map(self._values("tuples").of, self.texts())

    def texts(self) -> Iterator[dict[str, str]]:
        """One dict per row of the text that the server sends; NULL is an absent key."""
        for batch in self.batches():
            for row in batch.rows:
                yield row.columns

    def _values(self, what: str) -> RowValues:
        self._portal.run(self._twin.start())
        return self._twin._values(what)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def _iterate(self, make: Callable[[], Iteration[Item]]) -> Iterator[Item]:
        iteration = make()
        try:
            while (found := self._portal.run(_next(iteration))) is not _END:
                yield cast(Item, found)
        finally:
            self._portal.finish(iteration.aclose())


_END = object()


async def _next(iteration: Iteration[Item]) -> Item | object:
    return await anext(iteration, _END)


class _Intake:
    """Records that wait to be moved to the loop, many with one call of it."""

    LIMIT = 1_000

    def __init__(self, portal: Portal, pump: Pump) -> None:
        self._portal = portal
        self._pump = pump
        self._waiting: deque[tuple[Record, int]] = deque()
        self._called = False

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self.LIMIT

    def put(self, record: Record, size: int) -> None:
        self._pump.check(size)
        self._waiting.append((record, size))
        if not self._called:
            self._called = True
            self._portal.loop.call_soon_threadsafe(self._move)

    def empty(self) -> None:
        """Wait until the pump has taken everything."""
        self._portal.run(self._move_all())

    def _move(self) -> None:
        self._called = False
        waiting = self._waiting
        while waiting and self._pump.offer(*waiting[0]):
            waiting.popleft()

    async def _move_all(self) -> None:
        while self._waiting:
            await self._pump.put_wait(*self._waiting[0], done=self._waiting.popleft)


class _SyncWriter(_Handle[TwinT]):
    _pump: Pump
    _intake: _Intake

    @property
    def acknowledged(self) -> int:
        """Records that are stored."""
        return self._pump.outbox.acknowledged

    @property
    def dropped(self) -> int:
        """Records that are not, and will not be."""
        return self._pump.outbox.dropped

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                self._intake.empty()
        finally:
            super().__exit__(exc_type, exc, traceback)


class SyncPublisher(_SyncWriter[Publisher]):
    """Publishes in order, many in flight, through an outage; see Publisher."""

    def __init__(self, portal: Portal, make: Callable[[], Publisher]) -> None:
        super().__init__(portal, make)
        self._pump = self._twin.pump
        self._intake = _Intake(portal, self._pump)

    def send(
        self, topic: str, message: object, metadata: Mapping[str, object] | None = None
    ) -> None:
        """Hand over one message; waits only while the buffer is full."""
        if self._intake.full:
            self._intake.empty()
        self._intake.put(*make_update(topic, message, metadata))

    def try_send(
        self, topic: str, message: object, metadata: Mapping[str, object] | None = None
    ) -> bool:
        """As `send`, but a full buffer drops the message, counts it and returns False."""
        record = make_update(topic, message, metadata)
        if self._intake.full:
            self._portal.loop.call_soon_threadsafe(self._pump.drop)
            return False
        self._intake.put(*record)
        return True

    def flush(self) -> int:
        """Wait until everything sent so far is stored; return the last sequence."""
        self._intake.empty()
        return self._portal.run(self._twin.flush())


class SyncLogWriter(_SyncWriter[LogWriter]):
    """Writes one service's log through an outage; see LogWriter."""

    def __init__(self, portal: Portal, make: Callable[[], LogWriter]) -> None:
        super().__init__(portal, make)
        self._pump = self._twin.pump
        self._intake = _Intake(portal, self._pump)

    def write(
        self,
        message: str,
        level: str = "info",
        fields: Mapping[str, object] | None = None,
        timestamp: datetime | None = None,
    ) -> bool:
        """Hand over one line; never waits. False: there was no room, the line is counted."""
        if self._intake.full or self._pump.ended:
            self._portal.loop.call_soon_threadsafe(self._twin.note_drop)
            return False
        self._intake.put(*self._twin.entry(message, level, fields, timestamp))
        return True

    def send(
        self,
        message: str,
        level: str = "info",
        fields: Mapping[str, object] | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Hand over one line; waits while the buffer is full."""
        if self._intake.full:
            self._intake.empty()
        self._intake.put(*self._twin.entry(message, level, fields, timestamp))

    def flush(self) -> int:
        """Wait until everything written so far is stored; return the last sequence."""
        self._intake.empty()
        return self._portal.run(self._twin.flush())


class SyncJobBase(_Handle[JobHandle]):
    """What of a job needs no loop."""

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for the job to be cancelled."""
        return self._twin.cancel_requested.is_set()

    def advance(self, units: int = 1, step: str | None = None) -> None:
        """Note units done; costs next to nothing. One thread at a time may call it."""
        self._twin.note(units, step)
