"""What one query is to do, with every limit already applied."""

from __future__ import annotations

from dataclasses import dataclass

from streamkit.config import QueryLimits
from streamkit.database.base import Parameters

__all__ = ["DEFAULT_ARROW_ROWS", "DEFAULT_BATCH_ROWS", "QueryPlan"]

DEFAULT_BATCH_ROWS = 100
DEFAULT_ARROW_ROWS = 8192
_DEFAULTS = QueryLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryPlan:
    """One query as it will be run."""

    sql: str
    parameters: Parameters = ()
    batch_rows: int = DEFAULT_BATCH_ROWS
    max_message: int = _DEFAULTS.max_message
    """Bytes; a batch ends early at this size."""
    columns: bool = False
    """Announce the columns in the first message."""
    arrow: bool = False
    """Arrow IPC instead of rows of text."""
    seconds: float = _DEFAULTS.max_seconds
