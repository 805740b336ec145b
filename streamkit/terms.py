"""The words that all parts use: places in streams, their kinds, and where a server usually is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_PORT",
    "EPOCH_HEADER",
    "HINT_HEADER",
    "LEVELS",
    "NEVER_AGAIN",
    "NEWEST_HEADER",
    "OLDEST_HEADER",
    "POSITION_HEADER",
    "RECONNECT_HEADER",
    "TERMINAL",
    "VERSION",
    "Position",
    "Stream",
]

VERSION = "0.1.0"
"""Of streamkit; the same stands in pyproject.toml."""
DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"

EPOCH_HEADER = "streamkit-epoch"
POSITION_HEADER = "streamkit-position"
"""Of a stream's initial metadata: the place that it starts from."""
OLDEST_HEADER = "streamkit-oldest"
NEWEST_HEADER = "streamkit-newest"
"""Of the trailers after OUT_OF_RANGE: what there is to read."""
HINT_HEADER = "streamkit-hint"
"""Of the trailers after an error: what to do about it."""
RECONNECT_HEADER = "streamkit-reconnect"
"""Of the trailers of a call that another connection may carry at once."""

NEVER_AGAIN = {"grpc-retry-pushback-ms": "-1"}
"""Trailers that ask for no other attempt, whatever the status says; gRPC's own."""

LEVELS = ("debug", "info", "warn", "error")
"""The levels of a log line; the index is the rank."""

TERMINAL = frozenset({"completed", "failed", "cancelled", "lost"})
"""Job statuses that are never overwritten."""


class Stream(StrEnum):
    """The three streams of a journal and what their keys are."""

    UPDATES = "updates"
    """Keyed by topic."""
    LOGS = "logs"
    """Keyed by service; ranked by severity, debug 0 to error 3."""
    JOBS = "jobs"
    """Keyed by job id."""


class Position(NamedTuple):
    """A place in one stream of one journal's life: "everything up to `sequence` was read"."""

    epoch: str
    sequence: int
