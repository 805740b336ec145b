"""The URL of a database, as the server's operator writes it. Clients only ever send names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamkit.config import QueryLimits
from streamkit.database.base import Source
from streamkit.database.sqlite import SqliteSource
from streamkit.errors import InvalidArgumentError

__all__ = ["open_source"]

_FORMS = (
    "a SQLite file, sqlite:///, duckdb:///, csv:///, parquet:///, postgresql:// or adbc+DRIVER:"
)


def open_source(name: str, url: str, limits: QueryLimits | None = None) -> Source:
    """Return the source that a URL names; nothing is connected yet.

    A plain path is a SQLite file. Raises InvalidArgumentError for a URL of no known form; the
    message never holds the URL itself, which may carry a password.
    """
    scheme, separator, _ = url.partition(":")
    if not separator or len(scheme) < 2 or "/" in scheme:
        return SqliteSource(name, url, limits)
    scheme = scheme.lower()
    if scheme == "sqlite":
        return SqliteSource(name, _file(url), limits)
    raise InvalidArgumentError(f"database {name!r}: no such kind of URL; use {_FORMS}")


def _file(url: str) -> Path:
    """sqlite:////a/b and sqlite:///a/b are /a/b if that is there; else the latter is a/b."""
    rest = url.partition(":")[2]
    path = unquote(urlsplit(url).path) if rest.startswith("//") else unquote(rest)
    absolute = Path("/" + path.lstrip("/")) if path.startswith("/") else Path(path)
    if path.startswith("//") or absolute.exists() or not path.startswith("/"):
        return absolute
    return Path(path.removeprefix("/"))
