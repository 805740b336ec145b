"""Records as server-sent events, made once for all who read them.

The id of an event is the position after it, EPOCH.SEQUENCE.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import betterproto

from streamkit.codec import decode
from streamkit.config import DoorLimits
from streamkit.doors.quick import record_json, stored_json
from streamkit.doors.transcode import Shared, bodies_in
from streamkit.generated.streamservice import JobProgress, LogEntry, Update

__all__ = [
    "JOB",
    "JOBS",
    "LOGS",
    "SOURCES",
    "UPDATES",
    "EventSource",
    "Makers",
    "event",
    "gap",
    "plain",
    "threaded",
]

_FINAL = frozenset({"completed", "failed", "cancelled", "lost"})

Threaded = list[tuple[int, bytes]]
"""Events without their ids, each with the sequence that it leads to."""

T = TypeVar("T")


class EventSource:
    """One thing that can be read as events: its method, its records, its name among others."""

    def __init__(self, method: str, message: type[Any], name: str) -> None:
        self.method = "/streamservice." + method
        self.message = message
        self.name = name


UPDATES = EventSource("StreamService/SubscribeToUpdates", Update, "update")
LOGS = EventSource("StreamService/TailLogs", LogEntry, "log")
JOB = EventSource("StreamService/WatchJobProgress", JobProgress, "job")
JOBS = EventSource("ProducerService/WatchJobs", JobProgress, "jobs")
SOURCES = (UPDATES, LOGS, JOB, JOBS)


class Makers(Generic[T]):
    """What makes events, by source and life of the journal. One for a server."""

    def __init__(
        self, make: Callable[[EventSource, str], Callable[[bytes], T]], limits: DoorLimits
    ) -> None:
        self._make = make
        self._limits = limits
        self._shared: dict[tuple[str, str], Shared[T]] = {}

    def of(self, source: EventSource, epoch: str) -> Shared[T]:
        """Return what makes events of a source's frames."""
        key = (source.name, epoch)
        shared = self._shared.get(key)
        if shared is None:
            for old in [k for k in self._shared if k[0] == source.name]:
                del self._shared[old]  # of an earlier life nothing is read any more
            shared = self._shared[key] = Shared(self._make(source, epoch), self._limits)
        return shared


def plain(source: EventSource, epoch: str) -> Callable[[bytes], bytes]:
    """Return what makes the events of a response with one source, ids included."""
    head = f"id: {epoch}."

    def make(frames: bytes) -> bytes:
        found = [f"{head}{number}\n{text}" for number, text in _events(source, frames)]
        return "".join(found).encode()

    return make


def threaded(source: EventSource, epoch: str) -> Callable[[bytes], Threaded]:
    """Return what makes events whose ids each reader adds, because it reads other sources too."""

    def make(frames: bytes) -> Threaded:
        return [(number, text.encode()) for number, text in _events(source, frames)]

    return make


def _events(source: EventSource, frames: bytes) -> Iterator[tuple[int, str]]:
    """Make the events of frames, each without its id, and with the sequence that it leads to."""
    kind = source.message
    for start, end in bodies_in(frames):
        known = stored_json(kind, frames, start, end)
        if known is not None:
            yield known[0], f"data: {known[1]}\n\n"
        else:
            yield from _unusual(source, decode(kind, frames[start:end]))


def _unusual(source: EventSource, message: Any) -> Iterator[tuple[int, str]]:
    kind: str = ""
    control: Any = None
    if message.__dict__.get("control") is not None:
        kind, control = betterproto.which_one_of(message.control, "kind")
    if kind == "heartbeat":
        yield control.position.sequence, ":\n\n"
    elif kind == "gap":
        said = gap(source.name, control.first, control.last, control.reason)
        yield control.last, said.decode()
    else:
        yield message.sequence, f"data: {record_json(message)}\n\n"
        if source is JOB and message.status in _FINAL:
            end = {"jobId": message.job_id, "status": message.status}
            yield message.sequence, event("end", end).decode()


def gap(source: str, first: int, last: int, reason: str) -> bytes:
    """Return the event that says which records its reader will never get."""
    return event("gap", {"source": source, "first": first, "last": last, "reason": reason})


def event(name: str, told: dict[str, Any]) -> bytes:
    """Return an event of a kind of its own."""
    return f"event: {name}\ndata: {json.dumps(told)}\n\n".encode()
