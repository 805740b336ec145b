"""One opened database for all the connections to it, kept a little longer than they need it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any

__all__ = ["SharedDatabase"]

_IDLE_SECONDS = 3.0


class SharedDatabase:
    """Opens a database once and clones a connection of it for every query.

    Opening costs tens of milliseconds (an instance of DuckDB, PostgreSQL's catalogue of types), a
    clone a few. Once nothing was used for some seconds the database is given up, and with it the
    lock on its file. Any thread.
    """

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._root: Any = None
        self._identity: Hashable = None
        self._users = 0
        self._last_used = 0.0
        self._timer: threading.Timer | None = None

    def connect(self, open_root: Callable[[], Any], identity: Hashable = None) -> Any:
        """Return a connection, to be closed and then reported by `release`.

        What `identity` was opened is opened anew when that has changed.
        """
        with self._lock:
            if self._root is not None and self._identity != identity:
                self._close_root()
            if self._root is None:
                self._root = open_root()
                self._identity = identity
            self._last_used = monotonic()
            try:
                connection = self._root.adbc_clone()
            except BaseException:
                if not self._users:
                    self._close_root()
                raise
            self._users += 1
            return connection

    def release(self) -> None:
        """A connection was closed."""
        with self._lock:
            self._users -= 1
            self._last_used = monotonic()
            if not self._users and self._root is not None and self._timer is None:
                self._wait()

    def close(self) -> None:
        """Give the database up; connections that are still open keep what they need of it."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._close_root()

    def _wait(self) -> None:
        self._timer = threading.Timer(self._idle_seconds, self._close_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _close_if_idle(self) -> None:
        with self._lock:
            if self._timer is None:
                return  # closed meanwhile
            self._timer = None
            if self._users:
                return  # the last of them waits again
            if monotonic() - self._last_used < self._idle_seconds / 2:
                self._wait()
            else:
                self._close_root()

    def _close_root(self) -> None:
        root, self._root = self._root, None
        if root is not None:
            root.close()
