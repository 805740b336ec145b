"""From a URL to the engine behind it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamkit.config import JournalOptions
from streamkit.journal.address import is_log
from streamkit.journal.base import Clock, Journal, now
from streamkit.journal.memory import MemoryJournal
from streamkit.journal.rules.silence import Steady
from streamkit.journal.sqlite.journal import SqliteJournal, path_of

__all__ = ["open_journal", "opened_journal"]


async def open_journal(
    url: str = ":memory:",
    options: JournalOptions | None = None,
    *,
    clock: Clock = now,
    steady: Steady | None = None,
    data: str | os.PathLike[str] = "",
) -> Journal:
    """Open the journal at a URL: ":memory:", the path of an SQLite file ("sqlite:///path"), or a
    log that several servers share (postgresql://..., nats://...), of which `data` is the folder
    for this server's copy.

    The file is created if it is not there. Raises StoreError, in one line: in use by another
    process, from a newer version, not a store, not writable. `clock` tells the time of day and
    `steady` seconds that never jump, as time.monotonic does; a test gives its own.
    """
    if steady is None:
        steady = time.monotonic if clock is now else lambda: clock().timestamp()
    options = options or JournalOptions()
    if url in (":memory:", "memory:"):
        return MemoryJournal(options, clock, steady)
    if is_log(url):
        from streamkit.journal.replicated.opening import follow_log

        return await follow_log(url, os.fspath(data), options, clock, steady)
    return await SqliteJournal.open(path_of(url), options, clock, steady)


@asynccontextmanager
async def opened_journal(
    store: Journal | str | os.PathLike[str],
    options: JournalOptions,
    data: str | os.PathLike[str] = "",
) -> AsyncIterator[Journal]:
    """The journal of a server, which closes it at the end if it was opened here."""
    if isinstance(store, Journal):
        yield store
    elif os.fspath(store) == ":memory:":
        # On disk all the same, so that SQL over it works; nobody else sees it and nothing stays.
        with tempfile.TemporaryDirectory(prefix="streamkit-") as folder:
            url = os.path.join(folder, "store.db")
            async with await open_journal(url, options) as journal:
                yield journal
    else:
        async with await open_journal(os.fspath(store), options, data=data) as journal:
            yield journal
