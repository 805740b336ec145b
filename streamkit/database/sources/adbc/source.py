"""Every database with an ADBC driver as a query source: record batches, streamed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from streamkit.config import QueryLimits
from streamkit.database.base import (
    ColumnInfo,
    Parameters,
    Result,
    Source,
    TableInfo,
    unique_names,
)
from streamkit.database.encoding.arrow_text import unsupported
from streamkit.database.extras import driver_manager, library
from streamkit.database.sources.adbc.engine import Engine, Session
from streamkit.database.sources.adbc.placeholders import numbered
from streamkit.errors import (
    CallCancelledError,
    DeadlineError,
    LimitError,
    NotFoundError,
    PreconditionError,
    QueryError,
    StreamkitError,
)

__all__ = ["AdbcSource"]

T = TypeVar("T")


class AdbcSource(Source):
    """A database behind an ADBC driver. A connection of its own for every query.

    Raises PreconditionError at once when the driver is not installed.
    """

    def __init__(self, name: str, engine: Engine, limits: QueryLimits | None = None) -> None:
        self.name = name
        self._engine = engine
        self._limits = limits or QueryLimits()
        engine.check_installed()
        self.forked = engine.forked
        self.asked_here = not engine.forked

    def __reduce__(self) -> tuple[Any, ...]:
        return AdbcSource, (self.name, self._engine, self._limits)

    def restrict(self, limits: QueryLimits) -> None:
        self._limits = limits

    def open(self, sql: str, parameters: Parameters = (), *, seconds: float) -> Result:
        if isinstance(parameters, Mapping):
            sql, parameters = numbered(sql, parameters)
        most = self._limits.max_message_asked
        return _AdbcResult(self._connect(), sql, parameters, seconds, self._engine, most)

    def modules(self) -> list[str]:
        return [*super().modules(), *self._engine.modules()]

    def prepare(self) -> None:
        with suppress(StreamkitError, ImportError, OSError):  # a query will say so
            self._engine.load()

    def tables(self) -> list[TableInfo]:
        return self._ask(lambda session: session.tables())

    def describe(self, table: str) -> list[ColumnInfo]:
        found = self._ask(lambda session: session.describe(table))
        if not found:
            raise NotFoundError(f"no table {table!r} in database {self.name!r}")
        return found

    def close(self) -> None:
        self._engine.close()

    def _ask(self, question: Callable[[Session], list[T]]) -> list[T]:
        """Ask the catalogue on a connection of its own."""
        session = self._connect()
        try:
            return question(session)
        except _errors() as error:
            words = self._engine.brief(str(error))
            raise PreconditionError(f"database {self.name!r}: {words}") from None
        finally:
            session.close()

    def _connect(self) -> Session:
        try:
            return self._engine.connect(self._limits)
        except _errors() as error:
            raise self._engine.connect_error(self.name, str(error)) from None


def _errors() -> tuple[type[Exception], ...]:
    """What a driver, and a reader of its results, may raise."""
    arrow = library("pyarrow")
    return (driver_manager().Error, arrow.ArrowException, OSError)


def _size(batch: Any, enough: int) -> int:
    """The bytes of a batch, exactly where that matters.

    Those of its buffers, which a slice shares with the whole, are a bound that costs next to
    nothing; to count the bytes of each column's part of them takes longer than to make it.
    """
    bound = int(batch.get_total_buffer_size())
    return bound if bound <= enough else int(batch.nbytes)


class _AdbcResult(Result):
    arrow = True

    def __init__(
        self,
        session: Session,
        sql: str,
        parameters: Sequence[Any],
        seconds: float,
        engine: Engine,
        most: int,
    ) -> None:
        self._session = session
        self._sql = sql
        self._parameters = list(parameters)
        self._seconds = seconds
        self._end = monotonic() + seconds
        self._engine = engine
        self._most = most
        self._errors = _errors()
        self.cancel_blocks = engine.cancel_blocks
        self._reader: Any = None
        self._pending: list[Any] = []
        self._cancelled = False
        self._closed = False
        # A driver must not be asked to cancel what another thread is closing.
        self._lock = threading.Lock()

    def start(self) -> None:
        self._end = monotonic() + self._seconds
        try:
            self._reader = self._session.run(self._sql, self._parameters, self._seconds)
            schema = self._reader.schema
        except self._errors as error:
            raise self._translated(error) from None
        if not len(schema):
            raise QueryError("the statement returns no columns")
        for field in schema:
            if kind := unsupported(field.type) or self._session.misread(field):
                raise QueryError(
                    f"column {field.name!r} has the type {kind}, which cannot be sent:"
                    " cast it to text in the query"
                )
        names = unique_names(schema.names)
        pa = library("pyarrow")
        self.schema = pa.schema(
            [field.with_name(name) for field, name in zip(schema, names, strict=True)]
        )
        self.columns = [
            ColumnInfo(field.name, self._session.type_name(field), field.nullable)
            for field in self.schema
        ]

    def record_batch(self, size: int, max_bytes: int) -> Any | None:
        pa = library("pyarrow")
        parts, rows, held = [], 0, 0
        while rows < size and held < max_bytes:
            batch = self._pending.pop() if self._pending else self._next()
            if batch is None:
                break
            if rows + batch.num_rows > size:
                self._pending.append(batch.slice(size - rows))
                batch = batch.slice(0, size - rows)
            size_here = _size(batch, max_bytes)
            if size_here > max_bytes and batch.num_rows > 1:
                fitting = max(1, batch.num_rows * max_bytes // size_here)
                self._pending.append(batch.slice(fitting))
                batch = batch.slice(0, fitting)
            parts.append(batch)
            rows += batch.num_rows
            held += size_here
        if not parts:
            return None
        if len(parts) > 1:
            parts = pa.Table.from_batches(parts).combine_chunks().to_batches()
        return pa.RecordBatch.from_arrays(parts[0].columns, schema=self.schema)

    def cancel(self) -> None:
        self._cancelled = True
        # Who holds the lock closes the connection, or cancels already.
        if self._lock.acquire(blocking=False):
            try:
                if not self._closed:
                    self._session.cancel()
            finally:
                self._lock.release()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._pending.clear()
            if not self.finished and not self.cancel_blocks:
                # What was cancelled in the moment of its start, or stopped at a limit, still runs
                # in threads of the database, and closing would wait for the end of it.
                self._session.cancel()
            self._session.close()

    def _next(self) -> Any | None:
        """The driver's next batch that has rows."""
        while True:
            if self._cancelled or monotonic() > self._end:
                raise self._translated(None)
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                self.finished = True
                return None
            except self._errors as error:
                raise self._translated(error) from None
            most = self._most
            if batch.get_total_buffer_size() > most and batch.nbytes > most * batch.num_rows:
                # No message can carry it: do not spend minutes and more memory on its text.
                raise LimitError(f"a row has more than {most} bytes, the most that can be sent")
            if batch.num_rows:
                return batch

    def _translated(self, error: BaseException | None) -> StreamkitError:
        if self._cancelled:
            return CallCancelledError("the query was cancelled")
        if monotonic() > self._end or self._engine.timed_out(str(error)):
            return DeadlineError(f"the query ran longer than {self._seconds:g} s")
        return QueryError(self._engine.brief(str(error)))
