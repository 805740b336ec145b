"""What a log is: entries in one total order, durable before anybody sees them.

That is all the replicated journal needs of an engine. A log knows nothing of records: entries are
bytes, their places count from 1 without holes, and what is at a place never changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["ANSWER", "Log", "LogEntry", "LogStatus", "Snapshot"]

ANSWER = 5.0
"""Seconds: whoever joins has the time to wait for a log that chooses a new first server."""


class LogEntry(NamedTuple):
    """What stands at one place of a log."""

    place: int
    data: bytes


class LogStatus(NamedTuple):
    """What a log holds now. Empty: `first` = `last` + 1."""

    first: int
    last: int
    bytes: int
    notes: tuple[str, ...] = ()
    """What a person should know of the engine, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A copy of a store that has applied everything up to a place, kept by the log's engine."""

    place: int
    size: int
    digest: str
    """SHA-256 of its bytes, in hex."""
    name: str
    """How the engine finds its parts."""


class Log(ABC):
    """One log of one engine. Connects again by itself for as long as it is open."""

    url: str
    """What may be shown of where it is: without a password."""
    name: str
    life: str
    """Names this log's life; one that was made anew under the same name has another."""
    on_missed: Callable[[], None] | None = None
    """Called on the loop when an entry that was handed over is known not to be in the log."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make the log if it is not there. Raises StoreError, in one line, for an
        engine that cannot be reached, or that would lose what it acknowledged."""

    @abstractmethod
    async def append(self, data: bytes) -> None:
        """Hand an entry over. It is in the log when it comes out of `tail`: until then it may have
        been lost, and who repeats it may find it there twice. Raises StoreError."""

    @abstractmethod
    def tail(self, after: int) -> AsyncGenerator[Sequence[LogEntry], None]:
        """The entries from a place on, as they come, without end.

        Begins with the entry at `after` itself, unless that is 0, and begins again with the last
        one it gave after every break, so that who reads sees whether it is still the same log.
        Raises StoreError for a log that went back, that is another one, or whose entries after the
        place are gone; everything else it waits out.
        """

    @abstractmethod
    async def status(self, within: float = ANSWER) -> LogStatus:
        """What it holds now. Raises StoreError if it does not answer within so many seconds."""

    @abstractmethod
    async def trim(self, before: int) -> None:
        """Remove all entries before a place. Raises StoreError."""

    @abstractmethod
    async def snapshot(self) -> Snapshot | None:
        """The newest that is whole, or None. Raises StoreError."""

    @abstractmethod
    async def put_snapshot(self, snapshot: Snapshot, parts: AsyncIterator[bytes]) -> None:
        """Keep a snapshot, in place of the ones before it, once all its parts are there. Raises
        StoreError."""

    @abstractmethod
    def get_snapshot(self, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
        """The parts of a snapshot, in order. Raises StoreError, also when a newer one took its
        place meanwhile."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the engine. May be called twice."""
