"""What runs a statement for a query, wherever that is: a thread, or a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from streamkit.database.plan import QueryPlan
from streamkit.database.running.parcels import Parcel
from streamkit.errors import StreamkitError

__all__ = ["Runner", "Work"]


class Work(ABC):
    """One statement that runs. Belongs to the event loop."""

    @abstractmethod
    async def get(self, timeout: float | None = None) -> Parcel | None:
        """The next parcel; None is the end. Raises the statement's error, the reason given to
        `stop`, or TimeoutError, by which nothing is lost."""

    @abstractmethod
    def stop(self, reason: StreamkitError) -> None:
        """End the statement and return at once. Any number of times."""


class Runner(ABC):
    """Runs statements on one source."""

    @abstractmethod
    def begin(self, plan: QueryPlan, on_end: Callable[[], None]) -> Work:
        """Start a statement. `on_end` is called once, when nothing of it is left."""

    @abstractmethod
    def count(self, plan: QueryPlan, on_end: Callable[[int | None], None]) -> Work:
        """Start a statement whose one value is a number; None if it fails."""

    @abstractmethod
    async def ask(self, kind: str, table: str = "") -> list[tuple[Any, ...]]:
        """The source's tables, or a table's columns, as tuples of their fields."""
