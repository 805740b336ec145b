"""What a store is asked to do, as data. The store decides what each means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streamkit.config import Retention
from streamkit.generated.streamservice import JobReport
from streamkit.journal.base import Item, ProducerId, Record, Stream

__all__ = ["Append", "AppendRun", "Ask", "Cancel", "Committed", "Report", "Request", "Sweep"]


@dataclass(slots=True, kw_only=True)
class Request:
    """Something to store, by itself nothing. After the commit `result` or `error` is set."""

    now: datetime
    records: int = 1
    """About how many records this is."""
    size: int = 0
    """About how many bytes it holds while it waits."""
    result: Any = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)


@dataclass(slots=True, kw_only=True)
class Append(Request):
    """Updates or log lines, all or none."""

    stream: Stream
    messages: Sequence[Any]
    producer: ProducerId | None
    made: bool = False
    """As in AppendRun."""


@dataclass(slots=True, kw_only=True)
class AppendRun(Request):
    """Many small `Append`s that came together, each all or none. The result: what came of each."""

    stream: Stream
    batches: Sequence[tuple[Sequence[Any], ProducerId | None]]
    made: bool = False
    """Whether they are rows that were made elsewhere; their sequences are still to be given."""

    def apart(self) -> list[Append]:
        """The same, one by one."""
        return [
            Append(
                now=self.now,
                stream=self.stream,
                messages=messages,
                producer=producer,
                made=self.made,
            )
            for messages, producer in self.batches
        ]


@dataclass(slots=True, kw_only=True)
class Report(Request):
    """Job reports, all or none; `seen` is when they were heard."""

    reports: Sequence[JobReport]
    create: bool
    seen: float


@dataclass(slots=True, kw_only=True)
class Cancel(Request):
    """Somebody wants a job to end."""

    job_id: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Sweep(Request):
    """Time passed; `aged` is what ages are counted to. The result: whether to sweep again."""

    seen: float
    aged: datetime
    retention: Retention
    """What is kept from now on."""


@dataclass(slots=True, kw_only=True)
class Ask(Request):
    """Whether retention has something left to do."""


@dataclass(slots=True)
class Committed:
    """What a transaction stored, for the loop's thread."""

    requests: Sequence[Request]
    items: dict[Stream, list[Item[Record]]]
