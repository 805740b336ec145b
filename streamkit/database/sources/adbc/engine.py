"""One connection to a database behind ADBC: how to fence, run, cancel; what its words mean.

`Engine` and `Session` serve any driver; the special ones are in duckdb.py and postgresql.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, TableInfo
from streamkit.database.extras import driver_library, driver_manager, has, library, need
from streamkit.database.sources.adbc.shared import SharedDatabase
from streamkit.errors import PreconditionError, StreamkitError

__all__ = ["Engine", "Session", "brief"]

_READ_ONLY = "adbc.connection.readonly"
_STATUS_PREFIX = re.compile(r"^[A-Z_]+: (\[[\w ]+\] )?")


def brief(words: str) -> str:
    """The first line of a driver's message, without the driver's own prefix."""
    lines = _STATUS_PREFIX.sub("", words).strip().splitlines()
    return lines[0].strip() if lines else "the database gave no reason"


class Session:
    """One connection, for one statement. Everything may raise the driver's errors."""

    def __init__(self, connection: Any, on_close: Callable[[], None] = lambda: None) -> None:
        self.connection = connection
        self._on_close = on_close
        self._cursors: list[Any] = []

    def run(self, sql: str, parameters: Sequence[Any], seconds: float) -> Any:
        """Start a query and return its reader: `schema`, `read_next_batch`, `close`."""
        cursor = self.cursor()
        cursor.execute(sql, list(parameters) or None)
        return cursor.fetch_record_batch()

    def tables(self) -> list[TableInfo]:
        """What can be queried, by name."""
        catalogs = self.connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        found = [
            TableInfo(table["table_name"], "view" if "VIEW" in table["table_type"] else "table")
            for catalog in catalogs
            for schema in catalog["catalog_db_schemas"] or ()
            for table in schema["db_schema_tables"] or ()
        ]
        return sorted(found, key=lambda table: table.name)

    def describe(self, table: str) -> list[ColumnInfo]:
        """The columns of a table; none if there is no such table."""
        with suppress(driver_manager().Error):  # drivers say so of a table that is not there
            schema = self.connection.adbc_get_table_schema(table)
            return [ColumnInfo(field.name, str(field.type), field.nullable) for field in schema]
        return []

    def type_name(self, field: Any) -> str:
        """The type of a result's column in the database's words."""
        return str(field.type)

    def misread(self, field: Any) -> str:
        """The database's name of a type that its driver delivers as something else, or ""."""
        return ""

    def cursor(self) -> Any:
        """A new cursor; `cancel` reaches all of them."""
        cursor = self.connection.cursor()
        self._cursors.append(cursor)
        return cursor

    def cancel(self) -> None:
        """Stop what runs, if the driver can. May block on a network."""
        for cursor in tuple(self._cursors):
            with suppress(driver_manager().Error):  # not every driver can
                cursor.adbc_cancel()

    def close(self) -> None:
        """Give the connection up, whatever state it is in. Once."""
        for closable in (*self._cursors, self.connection):
            with suppress(driver_manager().Error):  # a broken one may say anything
                closable.close()
        self._cursors.clear()
        self._on_close()


class Engine:
    """Any ADBC driver, by name, and the URI that it takes.

    Such a driver is asked for a read-only connection; where it does not know how, only the rights
    of the login protect the data.
    """

    forked = True
    """As of a Source: what an unknown driver does cannot be told."""
    cancel_blocks = True
    """Whether a cancellation may take its time, as over a network."""

    def __init__(self, driver: str, uri: str) -> None:
        self.driver = driver
        self._uri = uri
        self._shared = SharedDatabase()

    def __reduce__(self) -> tuple[Any, ...]:
        return Engine, (self.driver, self._uri)

    def check_installed(self) -> None:
        """Raise PreconditionError, saying what to install, when something is missing."""
        need("pyarrow", f"a {self.driver} database")
        need("adbc_driver_manager", f"a {self.driver} database")

    def modules(self) -> list[str]:
        """What `load` imports, by name."""
        packaged = [f"adbc_driver_{self.driver}"] if self._packaged() else []
        return [type(self).__module__, "pyarrow.compute", "adbc_driver_manager.dbapi", *packaged]

    def load(self) -> None:
        """Import what a query needs: some tenths of a second, once in a process."""
        driver_manager()
        library("pyarrow.compute")
        if self._packaged():
            driver_library(self.driver)

    def connect(self, limits: QueryLimits) -> Session:
        """Open a connection for one statement. Raises the driver's errors."""
        connection = driver_manager().connect(
            driver=driver_library(self.driver) if self._packaged() else self.driver,
            db_kwargs={"uri": self._uri},
            autocommit=True,
        )
        with suppress(driver_manager().Error):  # not every driver has it
            connection.adbc_connection.set_options(**{_READ_ONLY: "true"})
        return Session(connection)

    def close(self) -> None:
        """Release what is shared by all connections."""
        self._shared.close()

    def connect_error(self, name: str, words: str) -> StreamkitError:
        """What a failed connection means, without anything that could be a secret.

        Not a ConnectError: this server answers, and a client that tried again on its own would
        say otherwise.
        """
        lowered = words.lower()
        if any(part in lowered for part in _WRONG_URL):
            return PreconditionError(
                f"database {name!r}: its URL is not valid",
                hint="special characters of a name or a password are written as %XX there",
            )
        if not self._packaged() and any(part in lowered for part in _NOT_LOADED):
            package = f"adbc-driver-{self.driver.replace('_', '-')}"
            return PreconditionError(
                f"database {name!r} needs the ADBC driver {self.driver!r}: pip install {package}"
            )
        if any(part in lowered for part in _REFUSED_LOGIN):
            return PreconditionError(f"database {name!r} refused this server's login")
        for part, meaning in _NOT_CONNECTED.items():
            if part in lowered:
                return PreconditionError(f"database {name!r}: {meaning}")
        return PreconditionError(f"database {name!r} cannot be opened")

    def _packaged(self) -> bool:
        return has(f"adbc_driver_{self.driver}")

    def brief(self, words: str) -> str:
        """The one line of an error of this database that matters to who wrote the query."""
        return brief(words)

    def timed_out(self, words: str) -> bool:
        """Whether the error says that the database's own time limit was reached."""
        return False


_WRONG_URL = (
    "invalid percent-encoded",
    "unexpected spaces",
    "unexpected character",
    "invalid uri",
    "key/value separator",
    "invalid port",
    "invalid integer value",
    "invalid sslmode",
    "end of string reached",
)
_NOT_LOADED = ("cannot open shared object", "driver not found", "could not load", "dlopen")
_REFUSED_LOGIN = ("password", "authentication", "unauthorized", "role ", "pg_hba.conf")
_NOT_CONNECTED = {
    "refused": "connection refused",
    "could not translate host name": "its host is not known",
    "timeout": "no answer in time",
    "could not set lock": "another process has it open for writing",
    "conflicting lock": "another process has it open for writing",
    "does not exist": "it is not there",
    "no such file": "it is not there",
    "external extensions": "its file is not a DuckDB database",
    "not a valid duckdb database": "its file is not a DuckDB database",
    "no files found": "it is not there",
    "too many clients": "it has no connection left",
    "too many connections": "it has no connection left",
    "remaining connection slots": "it has no connection left",
    "does not support ssl": "it does not offer the TLS that its URL asks for",
    "certificate": "its certificate is not trusted",
    "starting up": "it is just starting or stopping",
    "shutting down": "it is just starting or stopping",
    "could not connect": "it cannot be reached",
    "unreachable": "it cannot be reached",
    "permission denied": "this server may not open it",
}
