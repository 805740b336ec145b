"""The databases of a server as Python's database API (PEP 249): for pandas, notebooks, old tools.

    import pandas
    from streamkit import dbapi

    with dbapi.connect("localhost:50051", database="shop") as connection:
        frame = pandas.read_sql("SELECT * FROM orders WHERE item = :item", connection,
                                params={"item": "apple"})

A server's databases are read-only here: there is nothing to commit, nothing to roll back.
Parameters are named, `:name`; a list goes to the places that the database itself knows (`?`, `$1`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from datetime import time as _time
from types import TracebackType
from typing import Any, Self

from streamkit.client.blocking.client import Client
from streamkit.client.blocking.results import SyncQuery
from streamkit.client.reading.values import Family, family_of
from streamkit.errors import (
    InternalError as _InternalError,
)
from streamkit.errors import (
    InvalidArgumentError,
    NotFoundError,
    StreamkitError,
    UnimplementedError,
)

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
"""Threads share the module, not a connection."""
paramstyle = "named"

Date, Time, Timestamp, Binary = date, _time, datetime, bytes


def DateFromTicks(ticks: float) -> date:  # the standard's name, as those below
    """The local day of a moment."""
    return date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> _time:
    """The local time of a moment."""
    return _time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime:
    """A moment; a parameter of a query needs its time zone."""
    return datetime.fromtimestamp(ticks, UTC)


class _Kind:
    """Equal to every family of values that it stands for."""

    def __init__(self, *families: str) -> None:
        self._families = frozenset(families)

    def __eq__(self, other: object) -> bool:
        return other is self or (isinstance(other, Family) and other in self._families)

    def __hash__(self) -> int:
        return hash(self._families)


STRING = _Kind("text", "other", "uuid")
BINARY = _Kind("binary")
NUMBER = _Kind("integer", "real", "decimal", "boolean")
DATETIME = _Kind("date", "time", "timestamp")
ROWID = _Kind()


class Warning(Exception):  # the standard's name
    """Never raised; the standard wants it."""


class Error(Exception):
    """Base of all errors here; what it was made of is its `__cause__`."""


class InterfaceError(Error):
    """The module is used wrongly: a cursor that is closed, rows of no query."""


class DatabaseError(Error):
    """The server, or its database."""


class DataError(DatabaseError):
    """Never raised; the standard wants it."""


class OperationalError(DatabaseError):
    """Nothing that the statement could help: no connection, no time, a limit, no permission."""


class IntegrityError(DatabaseError):
    """Never raised; the standard wants it."""


class InternalError(DatabaseError):
    """A fault of the server's own."""


class ProgrammingError(DatabaseError):
    """The statement, its parameters or the name of the database is wrong."""


class NotSupportedError(DatabaseError):
    """What a read-only database does not have."""


def connect(address: str | None = None, *, database: str = "", **options: Any) -> Connection:
    """Connect to a server's database; "" is its own store. `options` are those of Client.

    Nothing is sent before the first statement. Raises InterfaceError for a wrong option.
    """
    try:
        return Connection(Client(address, **options), database)
    except (StreamkitError, TypeError) as error:
        raise InterfaceError(str(error)) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StreamkitError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise _kind_of(error)(f"{error}{hint}") from error


def _kind_of(error: StreamkitError) -> type[DatabaseError]:
    if isinstance(error, InvalidArgumentError | NotFoundError):
        return ProgrammingError
    if isinstance(error, _InternalError):
        return InternalError
    if isinstance(error, UnimplementedError):
        return NotSupportedError
    return OperationalError


class Connection:
    """One client; every cursor is a query of its own."""

    Error, InterfaceError, DatabaseError = Error, InterfaceError, DatabaseError
    OperationalError, ProgrammingError = OperationalError, ProgrammingError
    InternalError, NotSupportedError = InternalError, NotSupportedError
    DataError, IntegrityError, Warning = DataError, IntegrityError, Warning

    def __init__(self, client: Client, database: str) -> None:
        self._client: Client | None = client
        self._database = database

    def cursor(self) -> Cursor:
        """A new cursor. Raises InterfaceError once the connection is closed."""
        if self._client is None:
            raise InterfaceError("the connection is closed")
        return Cursor(self, self._client, self._database)

    def execute(self, sql: str, parameters: Any = ()) -> Cursor:
        """A new cursor that has run a statement; not of the standard, but usual."""
        return self.cursor().execute(sql, parameters)

    def commit(self) -> None:
        """Nothing: what is only read needs none."""

    def rollback(self) -> None:
        """Nothing: as `commit`."""

    def close(self) -> None:
        """End every query of this connection. May be called twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Cursor:
    """The rows of one statement at a time, fetched as they are asked for."""

    def __init__(self, connection: Connection, client: Client, database: str) -> None:
        self.connection = connection
        self.arraysize = 1
        """How many rows `fetchmany` gives when it is not told."""
        self.description: list[tuple[str, Family, None, None, None, None, bool]] | None = None
        """Of each column its name, what values it has, and whether it may be NULL."""
        self._client = client
        self._database = database
        self._query: SyncQuery | None = None
        self._rows: Iterator[tuple[Any, ...]] | None = None
        self._closed = False

    @property
    def rowcount(self) -> int:
        """How many rows the result has; -1 while that is not known."""
        return (self._query.total_rows or -1) if self._query is not None else -1

    def execute(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> Self:
        """Run a statement; what is left of the one before is given up."""
        self._check()
        self._give_up()
        with _translated():
            self._query = self._client.query(sql, parameters or (), database=self._database)
            self._query.start()
            self.description = [
                (column.name, family_of(column.type), None, None, None, None, column.nullable)
                for column in self._query.columns
            ]
            self._rows = self._query.tuples()
        return self

    def executemany(self, sql: str, parameters: Sequence[Any]) -> None:
        """Raise NotSupportedError: it is for writing."""
        raise NotSupportedError("a server's databases are read-only here")

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None after the last."""
        rows = self._results()
        with _translated():
            return next(rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next rows; [] after the last."""
        rows = self._results()
        wanted = self.arraysize if size is None else size
        found: list[tuple[Any, ...]] = []
        with _translated():
            while len(found) < wanted and (row := next(rows, None)) is not None:
                found.append(row)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        rows = self._results()
        with _translated():
            return list(rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Nothing: values say what they are."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Nothing: no value is cut."""

    def close(self) -> None:
        """End the query. May be called twice."""
        self._closed = True
        self._give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise InterfaceError("the cursor is closed")

    def _results(self) -> Iterator[tuple[Any, ...]]:
        self._check()
        if self._rows is None:
            raise InterfaceError("no statement was executed")
        return self._rows

    def _give_up(self) -> None:
        query, self._query, self._rows, self.description = self._query, None, None, None
        if query is not None:
            with _translated():
                query.close()
