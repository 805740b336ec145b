"""Snapshots: how a server that was never here, or away for too long, gets what the log has not.

The holder of the lease copies its store now and then, gives the copy to the log's engine in parts,
and removes the beginning of the log. The entry at the snapshot's own place stays: by it whoever
loads the copy sees that it belongs to this log.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing, suppress
from hashlib import sha256
from typing import BinaryIO

from streamkit.config import LogLimits
from streamkit.errors import StoreError
from streamkit.journal.replicated.log import Log, Snapshot
from streamkit.journal.replicated.store import place_in
from streamkit.journal.sqlite.copies import copy_of
from streamkit.journal.sqlite.lock import StoreLock

__all__ = ["joined", "keep_snapshot"]

_PARTS = ("-wal", "-shm", "-journal")


async def joined(log: Log, store: str) -> None:
    """Put a snapshot in the place of a store that cannot go on with what the log still holds.
    Raises StoreError."""
    lock = StoreLock(store)  # before anything opens the file: somebody else may have it
    try:
        place = await asyncio.to_thread(_place_of, lock.store)
        first = (await log.status()).first
        # Of what a store has applied the last entry has to be there, to be recognised by.
        if first <= max(place, 1):
            return
        snapshot = await log.snapshot()
        if snapshot is None or snapshot.place < max(first, place):
            raise StoreError(
                f"the log {log.name} begins at {first}, and there is no snapshot of what was"
                " before",
                hint="start a server whose --data has it, and wait until it has made one",
            )
        await _load(log, snapshot, lock.store)
    finally:
        lock.release()


async def keep_snapshot(log: Log, store: str, limits: LogLimits) -> Snapshot:
    """Copy a store, give the copy to the log's engine, and let go of the log before it. Raises
    StoreError; the snapshot before stays then."""
    places: list[int] = []
    with await copy_of(store, lambda path: places.append(_place_of(path))) as copy:
        place = places[0]
        digest, size = await asyncio.to_thread(_measured, copy)
        name = f"{place}-{secrets.token_hex(4)}"
        snapshot = Snapshot(place=place, size=size, digest=digest, name=name)
        copy.seek(0)
        await log.put_snapshot(snapshot, _parts_of(copy, limits.snapshot_part))
    await log.trim(place)
    return snapshot


async def _load(log: Log, snapshot: Snapshot, store: str) -> None:
    made = f"{store}.joining"
    digest = sha256()
    try:
        with open(made, "wb") as file:  # noqa: ASYNC230  # one part at a time, into the page cache
            os.chmod(made, 0o600)
            async with aclosing(log.get_snapshot(snapshot)) as parts:
                async for part in parts:
                    digest.update(part)
                    file.write(part)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        if digest.hexdigest() != snapshot.digest:
            raise StoreError(
                f"the snapshot of the log {log.name} at {snapshot.place} is not whole",
                hint="try again: a newer one may have taken its place",
            )
        for ending in _PARTS:
            with suppress(FileNotFoundError):
                os.unlink(store + ending)
        os.replace(made, store)
    except OSError as error:
        raise StoreError(f"a snapshot cannot be loaded: {error.strerror}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(made)


async def _parts_of(copy: BinaryIO, size: int) -> AsyncIterator[bytes]:
    while part := await asyncio.to_thread(copy.read, size):
        yield part


def _measured(copy: BinaryIO) -> tuple[str, int]:
    digest, size = sha256(), 0
    copy.seek(0)
    while part := copy.read(1 << 20):
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


def _place_of(store: str) -> int:
    """How far a store has come that nobody has open; 0 where there is none."""
    if not os.path.exists(store) or not os.path.getsize(store):
        return 0
    try:
        with closing(sqlite3.connect(store)) as connection:
            return place_in(connection).place
    except sqlite3.Error:
        return 0  # whoever opens it next says what is wrong with it
