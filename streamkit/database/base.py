"""What a query source is: a named, read-only database that streams rows in batches.

A source runs in worker threads: every method here blocks and is never called on the event loop,
except `Result.cancel`, which any thread may call at any time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamkit.config import QueryLimits

__all__ = ["ColumnInfo", "Parameters", "Result", "Source", "TableInfo", "unique_names"]

Parameters = Sequence[Any] | Mapping[str, Any]
"""Positional or named; values are None, bool, int, float, str, bytes, datetime or Decimal."""


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """One column: `type` in the database's own words, "" where it has none."""

    name: str
    type: str = ""
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table or view that may be queried."""

    name: str
    kind: str = "table"


class Result(ABC):
    """The rows of one statement, read once, from one snapshot.

    A result comes in one of two forms, `arrow` says which: lists of tuples, or pyarrow record
    batches. It has one connection of its own, which `close` gives up.
    """

    arrow: bool = False
    columns: Sequence[ColumnInfo] = ()
    """Set by `start`, names unique; their types are complete after the first fetch."""

    finished: bool = False
    """True as soon as it is known that there is no further row."""
    schema: Any = None
    """The pyarrow schema, set by `start` where `arrow` is true."""
    cancel_blocks: bool = True
    """Whether `cancel` may take its time, as over a network; an event loop calls it otherwise."""

    @abstractmethod
    def start(self) -> None:
        """Run the statement up to its first row.

        Raises QueryError in the database's words, DeadlineError when the time is over,
        CallCancelledError after `cancel`; so do `rows` and `record_batch`.
        """

    def rows(self, size: int, max_bytes: int) -> list[tuple[Any, ...]]:
        """Return the next rows: `size` of them, fewer once `max_bytes` are read; [] is the end.

        Text may come as the bytearray of its UTF-8, not yet checked; bytes are a blob.
        Only where `arrow` is false.
        """
        raise NotImplementedError

    def record_batch(self, size: int, max_bytes: int) -> Any | None:
        """As `rows`, in a record batch; None is the end. Only where `arrow` is true."""
        raise NotImplementedError

    @abstractmethod
    def cancel(self) -> None:
        """Stop the statement. Any thread, any number of times, before, during and after it runs.

        May be lost in a race with the statement's start: repeat it until the worker is back.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the connection. May be called twice."""


class Source(ABC):
    """A configured database. Read-only is enforced by the database, not by reading the SQL."""

    name: str
    forked: bool = False
    """Whether statements run in a process of their own, as they must where the database is a
    library that works in its caller's process. Such a source can be pickled."""
    asked_here: bool = True
    """Whether `tables` and `describe` are asked in the server's process all the same."""

    def restrict(self, limits: QueryLimits) -> None:  # noqa: B027  # one may know no limits
        """Statements that begin from now on keep to these limits."""

    @abstractmethod
    def open(self, sql: str, parameters: Parameters = (), *, seconds: float) -> Result:
        """Connect for one statement that may run for `seconds` from its start.

        Raises PreconditionError or QueryError, never with credentials in the message.
        """

    def modules(self) -> list[str]:
        """What a process that is to run its statements imports."""
        return [type(self).__module__]

    def later(self) -> list[str]:
        """What it should import as well, once a first statement need not wait for that."""
        return []

    def prepare(self) -> None:  # noqa: B027  # most have nothing to load
        """Load ahead what a first query would have to wait for. What is missing a query tells."""

    @abstractmethod
    def tables(self) -> list[TableInfo]:
        """What can be queried, by name."""

    @abstractmethod
    def describe(self, table: str) -> list[ColumnInfo]:
        """The columns of a table or view. Raises NotFoundError."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. May be called twice."""


def unique_names(names: Iterable[str]) -> list[str]:
    """Give every repeated name the first free suffix: id, id -> id, id_2."""
    wanted = list(names)
    taken: set[str] = set()
    unique = []
    for name in wanted:
        candidate, number = name, 1
        while candidate in taken or (number > 1 and candidate in wanted):
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique
