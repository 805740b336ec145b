"""Limits as options give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamkit.cli.exits import value_of
from streamkit.cli.input.parsing import duration, size, some

if TYPE_CHECKING:
    from streamkit.config import QueryLimits

__all__ = ["query_limits"]


def query_limits(params: Mapping[str, Any]) -> QueryLimits:
    """What queries may cost, by the options of `serve`. Raises UsageError."""
    from streamkit.config import QueryLimits  # here: help would wait for all settings

    return QueryLimits(
        max_seconds=value_of("--query-timeout", some(duration), params["query_timeout"]),
        max_concurrent=params["max_queries"],
        max_memory=value_of("--query-memory", some(size), params["query_memory"]),
        max_rows=params["query_rows"],
        max_bytes=value_of("--query-bytes", size, params["query_bytes"]),
    )
