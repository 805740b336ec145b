"""One server per store: a lock file beside it, held as long as the store is open.

SQLite's own locks cannot say this, because they also keep out the tools that only read. The
operating system drops the lock when its process ends, however it ends.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from streamkit.errors import StoreError

__all__ = ["StoreLock"]


class StoreLock:
    """Held from construction to `release`. Raises StoreError if somebody else holds it."""

    def __init__(self, store: str) -> None:
        self._path = f"{store}.lock"
        while True:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                folder = os.path.dirname(os.path.abspath(store))
                if not os.path.isdir(folder):
                    raise StoreError(
                        f"{store} cannot be opened: {folder} does not exist",
                        hint="create the directory, or give another path",
                    ) from None
                raise StoreError(
                    f"{store} cannot be opened for writing: {error.strerror}",
                    hint="check the permissions of its directory, or give another path",
                ) from None
            if not _lock(self._file):
                holder = _holder(self._file)
                os.close(self._file)
                raise StoreError(
                    f"{store} is in use by another server (process {holder or 'unknown'})",
                    hint="stop that server, or give this one another --store",
                )
            if self._is_current():
                break
            os.close(self._file)  # the last holder removed it between our open and our lock
        with suppress(OSError):  # on a full disk the lock holds without saying whose it is
            os.truncate(self._file, 0)
            os.write(self._file, b"%d\n" % os.getpid())

    def release(self) -> None:
        """Let others in. May be called twice."""
        if self._file >= 0:
            if sys.platform != "win32":  # which does not remove an open file
                os.unlink(self._path)  # while it is ours: who opens it later makes a new one
            os.close(self._file)
            self._file = -1

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False


def _holder(file: int) -> str:
    try:
        return os.read(file, 64).decode("ascii", "replace").strip()
    except OSError:  # Windows locks the bytes themselves
        return ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
