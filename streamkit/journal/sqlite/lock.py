"""One server per store: the store file itself is locked, whatever name it was found by.

SQLite's own locks cannot say this, because they also keep out the tools that only read; the lock
of another kind that is taken here does not meet them. A lock file beside the store says who holds
it, and keeps out servers of before and, on Windows, all others. The operating system drops both
locks when the process ends, however it ends.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from streamkit.errors import StoreError

__all__ = ["StoreLock", "locked"]

Inode = tuple[int, int]

_held: set[Inode] = set()
"""The stores of this process. A second one must not even open the file: closing it again would
drop the locks that SQLite holds on it for the first."""
_holding = threading.Lock()


class StoreLock:
    """Held from construction to `release`. Raises StoreError if somebody else holds it.

    Creates the store, empty and for its owner alone, where there is none.
    """

    def __init__(self, store: str) -> None:
        self.store = os.path.realpath(store)
        self._name = store
        self._path = f"{self.store}.lock"
        self._inode: Inode | None = None
        self._store = -1
        self._file = -1
        self._wal: Inode | None = None
        try:
            self._lock_store()
            self._lock_file()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others in. May be called twice."""
        if self._file >= 0:
            if sys.platform != "win32" and self._is_ours(self._path, self._file):
                os.unlink(self._path)  # while it is ours: who opens it later makes a new one
            os.close(self._file)
            self._file = -1
        if self._store >= 0:
            os.close(self._store)
            self._store = -1
        if self._inode is not None:
            with _holding:
                _held.discard(self._inode)
            self._inode = None

    def fault(self) -> str:
        """Why nothing may be stored any more, or "". A lock file that was removed is made again.

        What is written to a file that has no name any more is gone with the process.
        """
        if self._store < 0 and self._inode is None:
            return ""
        found = _inode_of(self.store)
        if found != self._inode:
            what = "removed" if found is None else "replaced by another file"
            return f"the store was {what} while it was in use"
        wal = _inode_of(f"{self.store}-wal")
        if self._wal is None:
            self._wal = wal
        elif wal != self._wal:
            return "the write-ahead log of the store was removed while it was in use"
        if self._file >= 0 and not self._is_ours(self._path, self._file):
            os.close(self._file)
            self._file = -1
            self._lock_file()
        return ""

    def _lock_store(self) -> None:
        inode = _inode_of(self.store)
        with _holding:
            if inode is None:
                inode = self._create()
            if inode in _held:
                raise self._in_use(str(os.getpid()))
            _held.add(inode)
            self._inode = inode
        if sys.platform == "win32":
            return  # which locks the very bytes, against SQLite too
        self._store = os.open(self.store, os.O_RDONLY | os.O_CLOEXEC)
        if not locked(self._store):
            raise self._in_use(self._holder())

    def _create(self) -> Inode:
        try:
            file = os.open(self.store, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._not_writable(error) from None
        os.close(file)
        inode = _inode_of(self.store)
        if inode is None:
            raise StoreError(f"{self._name} was removed while it was opened")
        return inode

    def _lock_file(self) -> None:
        while True:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._not_writable(error) from None
            if not locked(self._file):
                holder = self._holder()
                os.close(self._file)
                self._file = -1
                raise self._in_use(holder)
            if self._is_ours(self._path, self._file):
                break
            os.close(self._file)  # the last holder removed it between our open and our lock
        with suppress(OSError):  # on a full disk the lock holds without saying whose it is
            os.truncate(self._file, 0)
            os.write(self._file, b"%d\n" % os.getpid())

    def _holder(self) -> str:
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                return file.read(64).strip()
        except OSError:  # Windows locks the bytes themselves
            return ""

    def _in_use(self, holder: str) -> StoreError:
        return StoreError(
            f"{self._name} is in use by another server (process {holder or 'unknown'})",
            hint="stop that server, or give this one another file: --store, or --data for a copy",
        )

    def _not_writable(self, error: OSError) -> StoreError:
        folder = os.path.dirname(self.store)
        if not os.path.isdir(folder):
            return StoreError(
                f"{self._name} cannot be opened: {folder} does not exist",
                hint="create the directory, or give another path",
            )
        return StoreError(
            f"{self._name} cannot be opened for writing: {error.strerror}",
            hint="check the permissions of its directory, or give another path",
        )

    @staticmethod
    def _is_ours(path: str, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(path), os.fstat(file))
        except FileNotFoundError:
            return False


def _inode_of(path: str) -> Inode | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


if sys.platform == "win32":
    import msvcrt

    def locked(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
