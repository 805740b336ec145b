"""What takes the rows of a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamkit.formats import ColumnLike

if TYPE_CHECKING:
    from streamkit.generated.streamservice import QueryResult, Row

__all__ = ["Sink"]


class Sink:
    """Takes the batches of one result. `count` rows and `bytes` were written so far."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.started = False
        self.full = False
        """Whether a table on a terminal has all the rows that were to be shown."""
        self.complete = False
        """Whether the whole result was written."""

    def begin(self, columns: Sequence[ColumnLike]) -> None:
        self.started = True

    def rows(self, rows: Sequence[Row]) -> None:
        raise NotImplementedError

    def arrow(self, result: QueryResult) -> None:
        raise NotImplementedError

    def end(self, total: int) -> None:
        """The result is complete."""

    def abandon(self) -> None:
        """The result will not be complete."""
