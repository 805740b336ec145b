"""The URL of a database, as the server's operator writes it. Clients only ever send names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from streamkit.config import QueryLimits
from streamkit.database.base import Source
from streamkit.database.sources.adbc.duckdb import DuckDbEngine, DuckDbFiles
from streamkit.database.sources.adbc.engine import Engine
from streamkit.database.sources.adbc.postgresql import PostgresEngine
from streamkit.database.sources.adbc.source import AdbcSource
from streamkit.database.sources.sqlite.source import SqliteSource, StoreSource
from streamkit.errors import InvalidArgumentError

__all__ = ["open_source", "sources_of"]

_FORMS = "a file, sqlite:///, duckdb:///, csv:///, parquet:///, postgresql:// or adbc+DRIVER:"


def open_source(name: str, url: str, limits: QueryLimits | None = None) -> Source:
    """Return the source that a URL names; nothing is connected yet.

    A plain path is a file of SQLite, DuckDB, Parquet (told by its first bytes) or CSV (by its
    name). Raises InvalidArgumentError for a URL of no known form; the
    message never holds the URL itself, which may carry a password.
    """
    scheme, separator, _ = url.partition(":")
    if not separator or len(scheme) < 2 or "/" in scheme:
        return _of_path(name, Path(url), limits)
    scheme, rest = scheme.lower(), url[len(scheme) + 1 :]
    if scheme == "sqlite":
        return SqliteSource(name, _file(rest), limits)
    if scheme == "duckdb":
        return AdbcSource(name, DuckDbEngine(_file(rest)), limits)
    if scheme in ("csv", "parquet"):
        return AdbcSource(name, DuckDbFiles(_file(rest), scheme, name), limits)
    if scheme in ("postgresql", "postgres"):
        return AdbcSource(name, PostgresEngine(url), limits)
    if scheme.startswith("adbc+"):
        driver = scheme.removeprefix("adbc+")
        uri = f"{driver}:{rest}" if rest.startswith("//") else rest
        return AdbcSource(name, Engine(driver, uri), limits)
    raise InvalidArgumentError(f"database {name!r}: no such kind of URL; use {_FORMS}")


def sources_of(
    store: str | None, urls: Mapping[str, str], limits: QueryLimits
) -> dict[str, Source]:
    """The sources of a server: its own store, if that is a file, by the empty name, and others."""
    sources: dict[str, Source] = {}
    if store is not None:
        sources[""] = StoreSource(store, limits)
    for name, url in urls.items():
        if not name:
            raise InvalidArgumentError("a database needs a name; the empty one is the store's")
        sources[name] = open_source(name, url, limits)
    return sources


def _of_path(name: str, path: Path, limits: QueryLimits | None) -> Source:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        start = b""  # the first query says what is wrong with it
    if start[8:] == b"DUCK":
        return AdbcSource(name, DuckDbEngine(path), limits)
    if start.startswith(b"PAR1"):
        return AdbcSource(name, DuckDbFiles(path, "parquet", name), limits)
    if path.suffix.lower() == ".csv":
        return AdbcSource(name, DuckDbFiles(path, "csv", name), limits)
    return SqliteSource(name, path, limits)


def _file(rest: str) -> Path:
    """//{/a/b}: as in other tools four slashes are absolute, three are too if that is there."""
    path = unquote(rest.removeprefix("//")) if rest.startswith("//") else unquote(rest)
    absolute = Path("/" + path.lstrip("/")) if path.startswith("/") else Path(path)
    if path.startswith("//") or not path.startswith("/"):
        return absolute
    there = absolute.exists() or not Path(path.removeprefix("/")).exists()
    return absolute if there else Path(path.removeprefix("/"))
