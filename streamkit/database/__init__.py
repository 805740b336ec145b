"""Databases as read-only sources of streamed rows; no gRPC."""

from streamkit.database.base import ColumnInfo, Parameters, Result, Source, TableInfo
from streamkit.database.encoding.text import text_of
from streamkit.database.plan import DEFAULT_ARROW_ROWS, DEFAULT_BATCH_ROWS, QueryPlan
from streamkit.database.registry import Databases
from streamkit.database.running.query import Frames
from streamkit.database.sources.sqlite.source import SqliteSource, StoreSource
from streamkit.database.sources.urls import open_source

__all__ = [
    "DEFAULT_ARROW_ROWS",
    "DEFAULT_BATCH_ROWS",
    "ColumnInfo",
    "Databases",
    "Frames",
    "Parameters",
    "QueryPlan",
    "Result",
    "Source",
    "SqliteSource",
    "StoreSource",
    "TableInfo",
    "open_source",
    "text_of",
]
