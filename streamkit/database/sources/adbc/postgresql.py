"""PostgreSQL: read-only transactions, cursors as the place where only a query can stand.

Every query has a connection and one transaction, read-only from its first statement on, with the
query's time as its statement_timeout. The statement is first declared as a cursor: PostgreSQL
itself then refuses everything that is not exactly one query, COPY and DO included, which a
read-only transaction would let through. The fence around files and functions is the login's
rights: use one that may only SELECT. A superuser's rights are given up for the transaction.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, TableInfo
from streamkit.database.extras import driver_library, driver_manager, need
from streamkit.database.sources.adbc.engine import Engine, Session, brief
from streamkit.errors import QueryError

__all__ = ["PostgresEngine"]

_log = logging.getLogger(__name__)

_SETTINGS = """
SELECT set_config(name, CASE WHEN unit IS DISTINCT FROM 'kB' OR setting = '-1' THEN value
                             ELSE least(setting::bigint, value::bigint)::text END, true)
  FROM (VALUES ('transaction_read_only', 'on'),
               ('statement_timeout', '{milliseconds}'),
               ('idle_in_transaction_session_timeout', '{milliseconds}'),
               ('client_connection_check_interval', '1000'),
               ('cursor_tuple_fraction', '1'),
               ('work_mem', '{work_mem}'),
               ('temp_file_limit', '{spill}')) AS wanted(name, value)
  JOIN pg_settings USING (name)
 WHERE context <> 'superuser' OR current_setting('is_superuser') = 'on'"""
_NODES = 4
"""Sorts and hashes that a query is thought to run at a time; each gets work_mem."""
_GIVE_UP_SUPERUSER = """
SELECT set_config('role', rolname, true) FROM pg_roles
 WHERE rolname = 'pg_read_all_data'
   AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"""
_TABLES = """
SELECT CASE nspname WHEN 'public' THEN relname::text ELSE nspname || '.' || relname END AS name,
       CASE WHEN relkind IN ('v', 'm') THEN 'view' ELSE 'table' END AS kind
  FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND nspname NOT IN ('information_schema', 'pg_catalog')
   AND nspname NOT LIKE 'pg\\_t%' AND has_any_column_privilege(pg_class.oid, 'SELECT')
 ORDER BY name"""
_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
  JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND attnum > 0 AND NOT attisdropped
   AND (nspname || '.' || relname = $1 OR nspname = 'public' AND relname = $1)
   AND has_any_column_privilege(pg_class.oid, 'SELECT')
 ORDER BY attnum"""
_DECLARE = "DECLARE streamkit NO SCROLL CURSOR FOR "
_FETCH_ROWS = 4096
_BATCH_BYTES = str(64 * 1024)
_HAS_TIMEOUT = re.compile(r"[?&]connect_timeout=")
_AT_WORD = re.compile(r'syntax error at or near "(\w+)"')
_ITS_WORDS = re.compile(r"(?:ERROR|FATAL):\s+([^\n]*)")


class PostgresEngine(Engine):
    """A server by its URL, as libpq takes it."""

    forked = False  # it ends statements itself, when it is told to

    def __init__(self, url: str) -> None:
        super().__init__("postgresql", url)
        self._warned = False

    def check_installed(self) -> None:
        super().check_installed()
        need("adbc_driver_postgresql", "a PostgreSQL database")

    def connect(self, limits: QueryLimits) -> Session:
        connection = self._shared.connect(lambda: self._open(limits))
        return PostgresSession(connection, self, limits, self._shared.release)

    def _open(self, limits: QueryLimits) -> Any:
        return driver_manager().connect(
            driver=driver_library("postgresql"),
            db_kwargs={"uri": self._with_timeout(limits.connect_seconds)},
            autocommit=True,
        )

    def warn_superuser(self) -> None:
        """Say it once."""
        if not self._warned:
            self._warned = True
            _log.warning(
                "a PostgreSQL database is configured with a superuser's login;"
                " use one that may only SELECT"
            )

    def brief(self, words: str) -> str:
        found = _ITS_WORDS.search(words)
        if found is None and "ReadRecord failed" in words:
            return "a value has a form that cannot be sent: cast it to text in the query"
        if "cannot insert multiple commands" in words:
            return "only one statement at a time"
        return found[1] if found else brief(words)

    def timed_out(self, words: str) -> bool:
        return "due to statement timeout" in words

    def _with_timeout(self, seconds: float) -> str:
        if _HAS_TIMEOUT.search(self._uri):
            return self._uri
        joint = "&" if "?" in self._uri else "?"
        return f"{self._uri}{joint}connect_timeout={max(2, round(seconds))}"


class PostgresSession(Session):
    """A connection whose one transaction is ended by closing it."""

    def __init__(
        self,
        connection: Any,
        engine: PostgresEngine,
        limits: QueryLimits,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(connection, on_close)
        self._engine = engine
        self._limits = limits

    def run(self, sql: str, parameters: Sequence[Any], seconds: float) -> Any:
        self._fence(seconds)
        sql = sql.rstrip().rstrip(";") + "\n"  # the end of a comment on the last line
        self._declare(sql, parameters)
        if parameters:
            # With parameters the driver would read the whole result into memory.
            return _CursorReader(self)
        cursor = self.cursor()
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": _BATCH_BYTES})
        cursor.execute(sql)
        return cursor.fetch_record_batch()

    def misread(self, field: Any) -> str:
        kind = self.type_name(field).removeprefix("_")
        return kind if kind == "money" else ""  # it comes as a number of cents

    def tables(self) -> list[TableInfo]:
        return [TableInfo(*row) for row in self._rows(_TABLES)]

    def describe(self, table: str) -> list[ColumnInfo]:
        return [ColumnInfo(*row) for row in self._rows(_COLUMNS, [table])]

    def type_name(self, field: Any) -> str:
        metadata = field.metadata or {}
        return str(metadata.get(b"POSTGRESQL:type", b"").decode() or field.type)

    def fetch(self, rows: int) -> Any:
        """The next rows of the declared cursor, as a table."""
        cursor = self.connection.cursor()
        try:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(f"FETCH FORWARD {rows} FROM streamkit")
            return cursor.fetch_arrow_table()
        finally:
            cursor.close()

    def _fence(self, seconds: float) -> None:
        self.connection.adbc_connection.set_autocommit(False)
        share = self._limits.max_memory // self._limits.max_concurrent // _NODES
        settings = _SETTINGS.format(
            milliseconds=max(1, round(seconds * 1000)),
            work_mem=max(64, share >> 10),
            spill=self._limits.max_spill >> 10 or -1,
        )
        self._execute(settings)
        if self._execute(_GIVE_UP_SUPERUSER):
            self._engine.warn_superuser()

    def _declare(self, sql: str, parameters: Sequence[Any]) -> None:
        try:
            self._execute(_DECLARE + sql, parameters)
        except driver_manager().Error as error:
            found = _AT_WORD.search(str(error))
            if found is None or not sql.lstrip().lower().startswith(found[1].lower()):
                raise
            words = self._engine.brief(str(error))
            raise QueryError(f"only a query can run here: {words}") from None

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement of the server's own and return how many rows it gave."""
        cursor = self.cursor()
        cursor.execute(sql, list(parameters) or None)
        return len(cursor.fetchall()) if cursor.description else 0

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        self._fence(30)
        cursor = self.cursor()
        cursor.execute(sql, list(parameters) or None)
        return list(cursor.fetchall())


class _CursorReader:
    """Reads the declared cursor, some thousand rows at a time."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._first = session.fetch(_FETCH_ROWS)
        self.schema = self._first.schema

    def read_next_batch(self) -> Any:
        table = self._first if self._first is not None else self._session.fetch(_FETCH_ROWS)
        self._first = None
        if not table.num_rows:
            raise StopIteration
        return table.combine_chunks().to_batches()[0]
