"""Copies of a store: taken while it is written to, put in its place while nobody has it open."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from glob import escape, glob
from pathlib import Path
from typing import BinaryIO

from streamkit.errors import StoreError
from streamkit.journal.base import new_epoch
from streamkit.journal.sqlite.lock import StoreLock, locked
from streamkit.journal.sqlite.schema import APPLICATION_ID, VERSION, store_error

__all__ = ["copy_of", "restore_store"]

_SPARE = 64 * 1024 * 1024
"""Bytes that a copy leaves free on the disk: the store itself is written to meanwhile."""
_PARTS = ("-wal", "-shm", "-journal")


async def copy_of(store: str, look: Callable[[str], object] | None = None) -> BinaryIO:
    """Everything that is stored now, as an open file that nobody else sees: close it.

    One read of the store, beside its writer: what is written meanwhile is not in it. `look` is
    given the path of the copy while it still has one, in a thread. Raises
    StoreError, also where the disk has no room. A cancellation ends it and leaves nothing.
    """
    connection = _connected(store)
    work = asyncio.ensure_future(asyncio.to_thread(_copy, connection, store, look))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with suppress(sqlite3.ProgrammingError):  # it is closed already
            connection.interrupt()
        work.add_done_callback(_discard)
        await asyncio.wait({work})
        raise


def _discard(work: asyncio.Future[BinaryIO]) -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().close()


def _connected(store: str) -> sqlite3.Connection:
    uri = f"{Path(store).resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _copy(
    connection: sqlite3.Connection, store: str, look: Callable[[str], object] | None
) -> BinaryIO:
    folder, name = os.path.split(os.path.realpath(store))
    prefix = f".{name}.copy-"
    with closing(connection):
        for left in glob(os.path.join(escape(folder), f"{escape(prefix)}*")):
            _remove_left(left)
        try:
            handle, path = tempfile.mkstemp(prefix=prefix, dir=folder)  # for its owner alone
        except OSError as error:
            raise StoreError(f"no copy can be written: {error.strerror}") from None
        try:
            locked(handle)  # another process of this server must not take it for left behind
            _check_room(connection, folder)
            connection.execute("vacuum into ?", (path,))
            if look is not None:
                look(path)
            return open(path, "rb")
        except sqlite3.Error as error:
            raise store_error(error) from None
        finally:
            os.close(handle)
            os.unlink(path)  # what is open can be read all the same


def _remove_left(path: str) -> None:
    """Remove the copy of a process that was killed while it made it."""
    with suppress(OSError):  # its maker has just removed it
        file = os.open(path, os.O_RDONLY)
        try:
            if locked(file):
                os.unlink(path)
        finally:
            os.close(file)


def _check_room(connection: sqlite3.Connection, folder: str) -> None:
    (pages,) = connection.execute("pragma page_count").fetchone()
    (unused,) = connection.execute("pragma freelist_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    needed = (pages - unused) * size + _SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"there is no room for a copy: it needs {needed >> 20} MiB beside the store, and"
            f" {free >> 20} MiB are free",
            hint="free some space and repeat",
        )


def restore_store(copy: str, store: str, *, force: bool = False) -> None:
    """Make a store of a copy, with an epoch of its own: positions of before mean nothing in it.

    Raises StoreError and leaves everything as it was: for what is no whole copy, for a store that
    a server has open, and without `force` for one that is there.
    """
    if not os.path.isfile(copy):
        raise StoreError(f"{copy} is not there")
    there = os.path.exists(store)
    if there and not force:
        raise StoreError(f"{store} is there already", hint="choose another path, or --force")
    lock = StoreLock(store)
    made = f"{lock.store}.restoring"
    try:
        if os.path.exists(lock.store) and os.path.samefile(copy, lock.store):
            raise StoreError(f"{copy} is the store itself")
        try:
            shutil.copyfile(copy, made)
            os.chmod(made, 0o600)
            _begin_anew(made, copy)
            # A write-ahead log of before would be taken for that of the new file.
            for part in _PARTS:
                with suppress(FileNotFoundError):  # there may be none
                    os.unlink(lock.store + part)
            os.replace(made, lock.store)
            there = True
            _sync(os.path.dirname(lock.store))
        except OSError as error:
            raise StoreError(f"{store}: {error.strerror}") from None
        finally:
            for part in ("", *_PARTS):
                with suppress(FileNotFoundError):  # there may be none
                    os.unlink(made + part)
    finally:
        if not there:
            os.unlink(lock.store)  # the empty one that the lock has made
        lock.release()


def _begin_anew(path: str, name: str) -> None:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            execute = connection.execute
            (application,) = execute("pragma application_id").fetchone()
            (version,) = execute("pragma user_version").fetchone()
            if application != APPLICATION_ID:
                raise StoreError(f"{name} is no copy of a streamkit store")
            if version > VERSION:
                raise StoreError(
                    f"{name} was written by a newer streamkit (store version {version}, this one"
                    f" knows {VERSION})",
                    hint="upgrade streamkit",
                )
            (said,) = execute("pragma integrity_check(1)").fetchone()
            if said != "ok":
                raise StoreError(f"{name} is damaged: {said}", hint="take another copy")
            execute("begin immediate")
            connection.executemany(
                "insert or replace into meta values(?, ?)",
                [("epoch", new_epoch()), ("open", 0)],
            )
            execute("commit")
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{name} is no whole copy of a store: {error}") from None
    _sync(path)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
