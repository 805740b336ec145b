"""Databases as read-only sources of streamed rows; no gRPC.

A process that only runs statements loads no more than it needs: the names come when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamkit.database.base import ColumnInfo, Parameters, Result, Source, TableInfo
    from streamkit.database.encoding.text import text_of
    from streamkit.database.plan import DEFAULT_ARROW_ROWS, DEFAULT_BATCH_ROWS, QueryPlan
    from streamkit.database.registry import Databases
    from streamkit.database.sources.sqlite.source import SqliteSource, StoreSource
    from streamkit.database.sources.urls import open_source, sources_of

__all__ = [
    "DEFAULT_ARROW_ROWS",
    "DEFAULT_BATCH_ROWS",
    "ColumnInfo",
    "Databases",
    "Parameters",
    "QueryPlan",
    "Result",
    "Source",
    "SqliteSource",
    "StoreSource",
    "TableInfo",
    "open_source",
    "sources_of",
    "text_of",
]

_HOMES = {
    "streamkit.database.base": "ColumnInfo Parameters Result Source TableInfo",
    "streamkit.database.plan": "DEFAULT_ARROW_ROWS DEFAULT_BATCH_ROWS QueryPlan",
    "streamkit.database.registry": "Databases",
    "streamkit.database.sources.sqlite.source": "SqliteSource StoreSource",
    "streamkit.database.encoding.text": "text_of",
    "streamkit.database.sources.urls": "open_source sources_of",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value
