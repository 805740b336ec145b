"""What the process that writes a store and those that read beside it say to each other.

Values are what `marshal` writes: rows as they are stored, messages of jobs encoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamkit.codec import decode, encode
from streamkit.generated.streamservice import JobProgress
from streamkit.journal.base import Bounds, Item, Record, Stream
from streamkit.journal.records.items import RowItem, log_item, update_item
from streamkit.journal.sqlite.requests import Committed

__all__ = [
    "APPEND",
    "CANCEL",
    "FAULTS",
    "FEED",
    "HELLO",
    "JUMP",
    "PINNED",
    "PRUNE",
    "REPORT",
    "STATUS",
    "SYNC",
    "bounds_of",
    "items_of",
    "told_bounds",
    "told_items",
]

HELLO, FEED, JUMP, FAULTS, PINNED = 2, 3, 4, 5, 6
"""Told to a reading process: what the journal is; what was committed; that it has missed
something, and what there is now; what goes wrong; that a long read holds the store back."""
APPEND, REPORT, CANCEL, PRUNE, SYNC, STATUS = 16, 17, 18, 19, 20, 21
"""Asked by one: to store records, job reports, a cancellation; to apply what time brings, or to say
what that would be; to answer, so that everything that was committed before has been told; and how
the store is."""

_STREAMS = (Stream.UPDATES, Stream.LOGS)
_MAKE = {Stream.UPDATES: update_item, Stream.LOGS: log_item}


def told_items(committed: Iterable[Committed]) -> list[Any]:
    """The records of some commits, by stream, in order."""
    groups: list[Any] = []
    for done in committed:
        for stream, items in done.items.items():
            if stream in _STREAMS:
                told = [item.row for item in items if isinstance(item, RowItem)]
            else:
                told = [(i.sequence, i.key, i.size, encode(i.message)) for i in items]
            groups.append((stream.value, told))
    return groups


def items_of(stream: Stream, told: list[Any], after: int) -> list[Item[Record]]:
    """The items that `told_items` was given, as far as they follow a sequence."""
    rows = told if told[0][0] > after else [row for row in told if row[0] > after]
    if stream in _STREAMS:
        return list(map(_MAKE[stream], rows))
    return [Item(n, key, 0, decode(JobProgress, data), size) for n, key, size, data in rows]


def told_bounds(bounds: dict[Stream, Bounds]) -> dict[str, tuple[int, int]]:
    return {stream.value: (oldest, newest) for stream, (oldest, newest) in bounds.items()}


def bounds_of(told: dict[str, tuple[int, int]]) -> dict[Stream, Bounds]:
    return {Stream(name): Bounds(*pair) for name, pair in told.items()}
