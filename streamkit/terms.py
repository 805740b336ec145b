"""The words that all parts use: places in streams, their kinds, and where a server usually is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["DEFAULT_ADDRESS", "DEFAULT_PORT", "TERMINAL", "Position", "Stream"]

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"

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
