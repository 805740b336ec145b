"""DuckDB: database files, and CSV and Parquet files as tables.

The instance is locked down before a statement runs: no writing, no file but those configured, no
setting can be changed, memory is bounded, nothing spills to disk. DuckDB runs several statements at
once and other things than queries; its own parser says what they are.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, TableInfo
from streamkit.database.extras import driver_library, driver_manager, library, need
from streamkit.database.sources.adbc.engine import Engine, Session, brief
from streamkit.errors import QueryError

__all__ = ["DuckDbEngine", "DuckDbFiles"]

_LOCKS = {"enable_external_access": "false", "lock_configuration": "true"}
_NO_EXTENSIONS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
_TABLES = """
SELECT CASE table_schema WHEN 'main' THEN table_name
                         ELSE table_schema || '.' || table_name END AS name,
       CASE table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END AS kind
  FROM information_schema.tables ORDER BY name"""
_COLUMNS = """
SELECT column_name, data_type, is_nullable FROM information_schema.columns
 WHERE table_schema || '.' || table_name = $1 OR table_schema = 'main' AND table_name = $1
 ORDER BY ordinal_position"""
# What Arrow has no type for comes as another one: a BIT as the bytes behind it, a time without its
# zone, the upper half of UHUGEINT as negative numbers.
_AMBIGUOUS = re.compile(r"binary|time64|decimal128\(38, 0\)")
_MISREAD = re.compile(r"\b(?:BIT|UHUGEINT|TIME WITH TIME ZONE)(?=[\[\]),]|$)")
_TYPE_NAMES = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date32[day]": "DATE",
    "time64[us]": "TIME",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[ns]": "TIMESTAMP_NS",
    "month_day_nano_interval": "INTERVAL",
}


class DuckDbEngine(Engine):
    """A DuckDB database file."""

    cancel_blocks = False  # it sets a flag in this process

    def __init__(self, path: Path) -> None:
        super().__init__("duckdb", "")
        self._path = path
        self._parser: Any = None
        self._parsing = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return DuckDbEngine, (self._path,)

    def check_installed(self) -> None:
        super().check_installed()
        need("duckdb", "a DuckDB database")

    def modules(self) -> list[str]:
        return [*super().modules(), "duckdb"]

    def load(self) -> None:
        super().load()
        driver_library("duckdb")

    def connect(self, limits: QueryLimits) -> Session:
        connection = self._shared.connect(lambda: self._open(limits), self._identity())
        return DuckDbSession(connection, self, self._shared.release)

    def close(self) -> None:
        super().close()
        with self._parsing:
            if self._parser is not None:
                self._parser.close()
                self._parser = None

    def brief(self, words: str) -> str:
        return brief(words).replace(str(self._path), self._path.name)

    def check_statement(self, sql: str) -> None:
        """Ask DuckDB's parser. Raises QueryError unless it is exactly one query."""
        duckdb = library("duckdb")
        with self._parsing:
            if self._parser is None:
                self._parser = duckdb.connect(":memory:")
            try:
                kinds = [statement.type for statement in self._parser.extract_statements(sql)]
            except duckdb.Error as error:
                raise QueryError(brief(str(error))) from None
        if not kinds:
            raise QueryError("the query holds no statement")
        if len(kinds) > 1:
            raise QueryError("only one statement at a time")
        if kinds[0] != duckdb.StatementType.SELECT:
            kind = kinds[0].name.replace("_", " ")
            raise QueryError(f"only a query can run here, not a statement of the kind {kind}")

    def _open(self, limits: QueryLimits) -> Any:
        return self._instance(
            limits, path=str(self._path), access_mode="READ_ONLY", **_LOCKS, temp_directory=""
        )

    def _identity(self) -> Hashable:
        """Changes when another file is put in the place of this one."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _instance(self, limits: QueryLimits, **settings: str) -> Any:
        settings |= _NO_EXTENSIONS
        settings["memory_limit"] = f"{max(1, limits.max_memory >> 20)}MiB"
        # Sorts and aggregations gain from every processor; for a scan, whose reader is
        # the slower side, the number makes no difference that could be measured.
        settings["threads"] = str(min(4, os.cpu_count() or 1))
        return driver_manager().connect(
            driver=driver_library("duckdb"),
            entrypoint="duckdb_adbc_init",
            db_kwargs=settings,
            autocommit=True,
        )


class DuckDbFiles(DuckDbEngine):
    """Files of one kind as a table: the file's name without its ending, or `table` for a pattern.

    The query runs on an instance in memory in which nothing but these files can be opened.
    """

    def __init__(self, path: Path, kind: str, table: str) -> None:
        super().__init__(path)
        self._reader = f"read_{kind}"
        self._kind = kind
        self._table = table if any(mark in path.name for mark in "*?[") else path.stem

    def __reduce__(self) -> tuple[Any, ...]:
        return DuckDbFiles, (self._path, self._kind, self._table)

    def _open(self, limits: QueryLimits) -> Any:
        connection = self._instance(limits, path=":memory:", temp_directory="")
        try:
            for statement in self._prepared():
                with connection.cursor() as cursor:
                    cursor.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _identity(self) -> Hashable:
        return None  # the files are looked at by every query

    def _prepared(self) -> Sequence[str]:
        path = str(self._path.absolute()).replace("'", "''")
        folder = str(self._path.absolute().parent).replace("'", "''")
        table = self._table.replace('"', '""')
        return (
            f"CREATE VIEW \"{table}\" AS SELECT * FROM {self._reader}('{path}')",
            f"SET allowed_directories=['{folder}']"
            if self._table != self._path.stem
            else f"SET allowed_paths=['{path}']",
            *(f"SET {name}={value}" for name, value in _LOCKS.items()),
        )


class DuckDbSession(Session):
    """A connection to an instance that is locked down already."""

    def __init__(self, connection: Any, engine: DuckDbEngine, on_close: Callable[[], None]) -> None:
        super().__init__(connection, on_close)
        self._engine = engine
        self._asked: tuple[str, Sequence[Any]] = ("", ())
        self._kinds: dict[str, str] | None = None

    def run(self, sql: str, parameters: Sequence[Any], seconds: float) -> Any:
        self._engine.check_statement(sql)
        self._asked = sql, parameters
        return super().run(sql, parameters, seconds)

    def misread(self, field: Any) -> str:
        if not _AMBIGUOUS.search(str(field.type)):
            return ""
        if self._kinds is None:
            self._kinds = self._described()
        found = _MISREAD.search(self._kinds.get(field.name, ""))
        return found[0] if found else ""

    def tables(self) -> list[TableInfo]:
        return [TableInfo(*row) for row in self._rows(_TABLES)]

    def describe(self, table: str) -> list[ColumnInfo]:
        found = self._rows(_COLUMNS, [table])
        return [ColumnInfo(column, kind, nullable == "YES") for column, kind, nullable in found]

    def type_name(self, field: Any) -> str:
        kind = str(field.type)
        if kind.startswith("timestamp[us, tz="):
            return "TIMESTAMP WITH TIME ZONE"
        if kind.startswith("decimal128"):
            return "DECIMAL" + kind.removeprefix("decimal128").replace(" ", "")
        return _TYPE_NAMES.get(kind, kind.upper())

    def _described(self) -> dict[str, str]:
        """DuckDB's own types of the result's columns.

        On a connection of its own: a second statement on this one would end the result.
        """
        sql, parameters = self._asked
        with self.connection.adbc_clone() as connection, connection.cursor() as cursor:
            try:
                cursor.execute(f"DESCRIBE {sql}", list(parameters) or None)
            except driver_manager().Error:
                return {}  # EXPLAIN and its kind, whose columns are text
            return {row[0]: row[1] for row in cursor.fetchall()}

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        reader = super().run(sql, parameters, 0)
        return [tuple(row.values()) for row in reader.read_all().to_pylist()]
