"""What a query source is: a named, read-only database that streams rows in batches.

A source runs in worker threads: `open` and the methods of a `Result` block and are never called on
the event loop; `Result.cancel` may be called from any thread at any time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ColumnInfo", "Parameters", "Result", "Source", "TableInfo"]

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
    """The rows of one statement, read once, from one snapshot."""

    columns: tuple[ColumnInfo, ...]
    """Names are unique: a repeated name has a suffix (_2, _3)."""

    @abstractmethod
    def rows(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows in lists of at most `size`. Raises QueryError in the database's words,
        DeadlineError when the time is over, CallCancelledError after `cancel`."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop the statement at once. Any thread, any number of times."""

    @abstractmethod
    def close(self) -> None:
        """Release the connection. May be called twice."""


class Source(ABC):
    """A configured database. Read-only is enforced by the database, not by reading the SQL."""

    name: str

    @abstractmethod
    def open(self, sql: str, parameters: Parameters = (), *, seconds: float) -> Result:
        """Start one statement that may run for `seconds`. Raises QueryError."""

    @abstractmethod
    def tables(self) -> list[TableInfo]:
        """What can be queried, by name."""

    @abstractmethod
    def describe(self, table: str) -> list[ColumnInfo]:
        """The columns of a table or view. Raises NotFoundError."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. May be called twice."""
