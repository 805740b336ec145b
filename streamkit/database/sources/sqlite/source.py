"""SQLite as a query source: the standard library only, any file, and the server's own store."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.base import (
    ColumnInfo,
    Parameters,
    Result,
    Source,
    TableInfo,
    unique_names,
)
from streamkit.database.encoding.text import datetime_text, decimal_text
from streamkit.database.sources.sqlite.declared import declared_classes
from streamkit.database.sources.sqlite.guard import connect_read_only, guard
from streamkit.database.sources.sqlite.spill import spilled
from streamkit.errors import (
    CallCancelledError,
    DeadlineError,
    LimitError,
    NotFoundError,
    PreconditionError,
    QueryError,
    StreamkitError,
)

__all__ = ["SqliteSource", "StoreSource"]

_MOST_ROWS = 64
_PART_BYTES = 256 * 1024
"""Rows are fetched in parts: the size of one is looked at before the next, so that memory stays
bounded by the size of a few rows."""
_SIZED = frozenset({bytearray, bytes})

_NO_VALUE = re.compile(r"did not supply a value for binding (?:parameter )?(:\w+)")
_DISK_INTERVAL = 0.5
_STORAGE_CLASSES = {int: "INTEGER", float: "REAL", bytearray: "TEXT", bytes: "BLOB"}
_STORE_TABLES_HIDDEN = frozenset({"meta", "dedupe", "marks", "log_levels"})


class SqliteSource(Source):
    """One SQLite file. A connection of its own for every query, none between queries."""

    forked = True
    hidden: frozenset[str] = frozenset()

    def __init__(self, name: str, path: str | Path, limits: QueryLimits | None = None) -> None:
        self.name = name
        self._path = Path(path)
        self._limits = limits or QueryLimits()

    def restrict(self, limits: QueryLimits) -> None:
        self._limits = limits

    def open(self, sql: str, parameters: Parameters = (), *, seconds: float) -> Result:
        return _SqliteResult(self._connect(), sql, parameters, seconds, self)

    def later(self) -> list[str]:
        return ["pyarrow.compute"]  # encodes long results, where it is there

    def tables(self) -> list[TableInfo]:
        with self._trusted() as connection:
            found = connection.execute(
                "SELECT name, type FROM pragma_table_list"
                " WHERE schema = 'main' AND type IN ('table', 'view', 'virtual')"
                " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
            ).fetchall()
        return [
            TableInfo(name, "view" if kind == "view" else "table")
            for name, kind in found
            if not self._is_hidden(name)
        ]

    def describe(self, table: str) -> list[ColumnInfo]:
        with self._trusted() as connection:
            found = connection.execute(
                'SELECT name, type, "notnull", pk FROM pragma_table_xinfo(?) WHERE hidden <> 1',
                (table,),
            ).fetchall()
        if not found or self._is_hidden(table):
            where = f"database {self.name!r}" if self.name else "the server's own store"
            raise NotFoundError(f"no table {table!r} in {where}")
        return [ColumnInfo(name, kind, not (notnull or pk)) for name, kind, notnull, pk in found]

    def close(self) -> None:
        """Nothing is held between queries."""

    @property
    def path(self) -> Path:
        """Its file."""
        return self._path

    @property
    def limits(self) -> QueryLimits:
        """What a query on this source may cost."""
        return self._limits

    def _is_hidden(self, table: str) -> bool:
        return table.lower() in self.hidden

    def _connect(self) -> sqlite3.Connection:
        if not self._path.is_file():
            raise PreconditionError(f"database {self.name!r}: its file is not there")
        try:
            return connect_read_only(self._path)
        except sqlite3.Error as error:
            raise PreconditionError(f"database {self.name!r}: {error}") from None

    def _trusted(self) -> _Closing:
        return _Closing(self._connect(), self.name)


class StoreSource(SqliteSource):
    """The server's own store: updates, logs and jobs as tables, its bookkeeping hidden."""

    hidden = _STORE_TABLES_HIDDEN

    def __init__(self, path: str | Path, limits: QueryLimits | None = None) -> None:
        super().__init__("", path, limits)


class _Closing:
    """A connection for the catalogue questions of the source itself, with text as str."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    def __enter__(self) -> sqlite3.Connection:
        self._connection.text_factory = lambda data: data.decode(errors="replace")
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.Error):
            raise PreconditionError(f"database {self._name!r}: {error}") from None


class _SqliteResult(Result):
    cancel_blocks = False

    def __init__(
        self,
        connection: sqlite3.Connection,
        sql: str,
        parameters: Parameters,
        seconds: float,
        source: SqliteSource,
    ) -> None:
        self._connection = connection
        self._sql = sql
        self._parameters = parameters
        self._seconds = seconds
        self._end = monotonic() + seconds
        self._limits = source.limits
        self._path = source.path
        self._hidden = source.hidden
        self._cursor: sqlite3.Cursor | None = None
        self._failure: StreamkitError | None = None
        self._typed = False
        self._part = 1
        self._cancelled = False
        self._too_large = False
        self._look_at_disk = monotonic() + _DISK_INTERVAL
        self._closed = False
        # Interrupting a connection that another thread closes meanwhile is undefined.
        self._lock = threading.Lock()

    def start(self) -> None:
        self._end = monotonic() + self._seconds
        try:
            guard(
                self._connection,
                hidden=self._hidden,
                max_value=self._limits.max_value,
                stop=self._must_stop,
            )
            self._check()
            bound = _bound(self._parameters)
            self._cursor = self._connection.execute(self._sql, bound)
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
            raise self._translated(error) from None
        if isinstance(bound, _Named) and bound.unused:
            raise QueryError(f"parameter :{bound.unused.pop()} is not used in the query")
        if self._cursor.description is None:
            raise QueryError("the query holds no statement")
        names = unique_names(str(column[0]) for column in self._cursor.description)
        self.columns = [ColumnInfo(name) for name in names]

    def rows(self, size: int, max_bytes: int) -> list[tuple[Any, ...]]:
        if self._cursor is None:
            raise AssertionError("start() comes first")
        if self._failure is not None:
            raise self._failure
        rows: list[tuple[Any, ...]] = []
        held = 0
        try:
            while len(rows) < size and held < max_bytes and not self.finished:
                wanted = min(self._part, size - len(rows))
                part = self._cursor.fetchmany(wanted)
                self._check()
                rows += part
                self.finished = len(part) < wanted
                part_bytes = sum([len(v) for row in part for v in row if type(v) in _SIZED])
                held += part_bytes
                if part_bytes > _PART_BYTES:
                    self._part = max(1, self._part // 4)
                elif self._part < _MOST_ROWS:
                    self._part *= 2
        except sqlite3.Error as error:
            self._failure = self._translated(error)
            if not rows:
                raise self._failure from None
        if not self._typed and rows:
            self._typed = True
            self._type(rows)
        return rows

    def _type(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Say what the columns hold: what their first values are, or are declared to be."""
        values = list(zip(*rows, strict=True))
        kinds = list(map(_storage_class, values))
        empty = [not any(value is not None for value in column) for column in values]
        if any(empty):
            declared = declared_classes(self._path, self._sql)
            if len(declared) == len(kinds):
                kinds = [
                    told if nothing else kind
                    for kind, told, nothing in zip(kinds, declared, empty, strict=True)
                ]
        self.columns = [
            ColumnInfo(column.name, kind) for column, kind in zip(self.columns, kinds, strict=True)
        ]

    def cancel(self) -> None:
        self._cancelled = True
        # Who holds the lock closes the connection, or interrupts it already.
        if self._lock.acquire(blocking=False):
            try:
                if not self._closed:
                    self._connection.interrupt()
            finally:
                self._lock.release()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._cursor is not None:
                    self._cursor.close()  # else its statement keeps the file open
                self._connection.close()

    def _must_stop(self) -> bool:
        now = monotonic()
        if now > self._look_at_disk:
            self._look_at_disk = now + _DISK_INTERVAL
            most = self._limits.max_spill
            self._too_large = self._too_large or (0 < most < spilled())
        return self._cancelled or self._too_large or now > self._end

    def _check(self) -> None:
        if self._must_stop():
            raise self._translated(None)

    def _translated(self, error: Exception | None) -> StreamkitError:
        if self._cancelled:
            return CallCancelledError("the query was cancelled")
        if monotonic() > self._end and (error is None or "interrupted" in str(error)):
            return DeadlineError(f"the query ran longer than {self._seconds:g} s")
        if self._too_large and (error is None or "interrupted" in str(error)):
            return LimitError(
                f"queries need more than {self._limits.max_spill} bytes of temporary files,"
                " the server's limit"
            )
        words = str(error)
        missing = _NO_VALUE.search(words)
        if missing is not None:
            words = f"parameter {missing[1]} has no value"
        elif isinstance(error, MemoryError):
            words = "the statement or a value of it is too large"
        elif "too big" in words:
            words += f" (no value may be larger than {self._limits.max_value} bytes)"
        elif words == "not authorized":
            words += ": this database is read-only here"
        return QueryError(words)


def _storage_class(values: Sequence[Any]) -> str:
    """SQLite types values, not columns: what the first values are, or "" when they differ."""
    kinds = {_STORAGE_CLASSES[type(value)] for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else ""


class _Named(dict[str, Any]):
    """Named parameters that know which of them the statement has not asked for."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.unused = set(parameters)

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self.unused.discard(name)
        return value


def _bound(parameters: Parameters) -> Parameters:
    """Give values that SQLite does not know their canonical text."""
    if isinstance(parameters, Mapping):
        return _Named({name: _storable(value) for name, value in parameters.items()})
    return [_storable(value) for value in parameters]


def _storable(value: Any) -> Any:
    if isinstance(value, datetime):
        return datetime_text(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    return value
