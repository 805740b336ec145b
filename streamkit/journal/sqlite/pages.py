"""Pages of stored records, for readers that are behind what is in memory.

A page is one short statement, so that it holds back no checkpoint, and a single step of SQLite:
the sqlite3 module lets go of the interpreter lock at every step, and to get it back next to a busy
loop can take milliseconds. So SQLite joins each column of the page to one value, which is split
here, or makes JSON of the rows where that will not do.

A selector that comes to a few exact keys is a merge of index walks, whose cost is bounded by what
is wanted and not by what is stored; any other walks along the sequences, a bounded number a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from streamkit.journal.base import Record, Selector, Stream
from streamkit.journal.live.reader import Page
from streamkit.journal.live.ring import BATCH_BYTES, BATCH_RECORDS
from streamkit.journal.records.columns import StoredItems
from streamkit.journal.records.items import LEVELS
from streamkit.journal.records.rows import COLUMNS
from streamkit.journal.sqlite.schema import TABLES

__all__ = ["KEYS", "LONGEST", "Pages", "Walk", "walks_of"]

KEYS = {Stream.UPDATES: "topic", Stream.LOGS: "service", Stream.JOBS: "job_id"}
"""Of each stream's table, the column with the key."""
LONGEST = 16 * 1024 * 1024
"""Bytes that one value of a page may have."""

_NO_LIMIT = 1_000_000_000
_MOST_WALKS = 32
"""Index walks that are merged; beyond that a walk along the sequences is cheaper."""
_SPAN = 16 * BATCH_RECORDS
"""Records that are looked at for a page, before the reader is told how far it is."""
_PAGE_BYTES = BATCH_BYTES // 2
"""Of text in one page, unless it is a single record."""
_PACES = 1024
_DIVIDER = "\x1e"
"""Between the values of a joined column. A page in which it occurs takes the longer way."""
_MAPS = ("metadata", "fields")

Walk = tuple[str, tuple[Any, ...]]
"""One index walk: its WHERE and the parameters of it."""


class Pages:
    """Reads pages. Keeps for each selector how many rows came to a page lately."""

    def __init__(self) -> None:
        self._paces: dict[int, int] = {}  # by hash: the selectors themselves may be large

    def read(
        self, connection: sqlite3.Connection, selector: Selector, after: int, end: int
    ) -> Page[Record]:
        """Wanted records after a sequence, up to a stored one."""
        known = hash(selector)
        pace = self._paces.get(known, BATCH_RECORDS)
        while True:
            try:
                page, pace = _read(connection, selector, after, end, pace)
                break
            except sqlite3.DataError:  # longer than a page may be
                if pace == 1:
                    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _NO_LIMIT)
                pace = max(1, pace // 8)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        if len(self._paces) >= _PACES:
            self._paces.clear()
        self._paces[known] = pace
        return page


def walks_of(connection: sqlite3.Connection, selector: Selector) -> list[Walk] | None:
    """The index walks that a selector comes to, or None if they are too many."""
    stream = selector.stream
    logs = stream is Stream.LOGS
    if selector.every_key() and not (logs and selector.min_rank):
        return None
    ranks = range(selector.min_rank, len(LEVELS)) if logs else range(1)
    most = _MOST_WALKS // max(1, len(ranks))
    if selector.exact():
        keys = sorted(set(selector.patterns))
    else:
        # Which keys are there? So many hops along the index as there are keys.
        every = _distinct(connection, TABLES[stream], KEYS[stream], 8 * most)
        if every is None:
            return None
        keys = [key for key in every if any(selector.matches(key, rank) for rank in ranks)]
    if len(keys) > most:
        return None
    if logs:
        return [("service = ? and severity = ?", (key, rank)) for key in keys for rank in ranks]
    return [(f"{KEYS[stream]} = ?", (key,)) for key in keys]


def _distinct(connection: sqlite3.Connection, table: str, key: str, most: int) -> list[str] | None:
    found = connection.execute(
        f"with recursive keys(name) as (select min({key}) from {table} union all"
        f" select (select min({key}) from {table} where {key} > name) from keys"
        " where name is not null)"
        " select name from keys where name is not null limit ?",
        (most + 1,),
    ).fetchall()
    return None if len(found) > most else [name for (name,) in found]


def _read(
    connection: sqlite3.Connection, selector: Selector, after: int, end: int, pace: int
) -> tuple[Page[Record], int]:
    """A page out of at most `pace` rows, and how many the next one shall look at."""
    walks = walks_of(connection, selector)
    if walks is None:
        end = min(end, after + pace)
    oldest, rows = _fetch(connection, selector, walks, (after, end, pace))
    found = rows
    if walks is None and not selector.every_key():
        rank = selector.min_rank
        wanted = {key: selector.matches(key.decode(), rank) for key in set(rows.keys)}
        if not all(wanted.values()):
            found = rows.only(map(wanted.__getitem__, rows.keys))
    count = _fitting(found)
    if count < len(found):
        found = found.first(count)
        covered = found.sequences[-1]
        pace = max(1, covered - after if walks is None else count)
    else:
        covered = rows.sequences[-1] if walks is not None and len(rows) == pace else end
        if walks is None and 2 * count <= end - after:  # few are wanted
            pace = min(_SPAN, 2 * pace)
        else:
            pace = min(BATCH_RECORDS, pace + pace // 8 + 1)
    return Page(found, covered, end + 1 if oldest is None else oldest), pace


def _fitting(items: StoredItems) -> int:
    """How many of the items are one page."""
    most = BATCH_RECORDS
    if items.size > _PAGE_BYTES and items.stream is not Stream.JOBS:
        sizes = accumulate(sum(map(len, texts)) for texts in zip(*items.columns, strict=True))
        most = min(most, max(1, sum(size <= _PAGE_BYTES for size in sizes)))
    return min(len(items), most)


def _fetch(
    connection: sqlite3.Connection,
    selector: Selector,
    walks: list[Walk] | None,
    window: tuple[int, int, int],
) -> tuple[int | None, StoredItems]:
    """The oldest sequence and the rows after, up to, at most: of one snapshot, in one step."""
    stream = selector.stream
    table, columns = TABLES[stream], COLUMNS[stream]
    after, end, limit = window
    along = walks is None and not selector.min_rank
    if walks is None:
        walks = [("severity >= ?", (selector.min_rank,)) if selector.min_rank else ("true", ())]
    parts = [
        f"select {', '.join(columns)} from {table} where {where} and sequence > ? and sequence <= ?"
        for where, _ in walks or [("false", ())]
    ]
    source = f"({' union all '.join(parts)} order by sequence limit ?)"
    parameters = [value for _, values in walks or [("", ())] for value in (*values, after, end)]
    parameters.append(limit)

    def ask(what: str) -> Any:
        what = f"select (select min(sequence) from {table}), {what} from {source}"
        return connection.execute(what, parameters).fetchone()

    if stream is not Stream.JOBS:
        numbers = "null" if along else "group_concat(sequence, ',')"
        texts = ", ".join(map(_joined, columns[1:]))
        oldest, *found = ask(f"count(*), min(sequence), max(sequence), {numbers}, {texts}")
        items = _divided(stream, *found)
        if items is not None:
            return oldest, items
    oldest, text = ask(f"json_group_array(json_array({', '.join(columns)}))")
    return oldest, StoredItems.of_rows(stream, json.loads(text), len(text))


def _joined(column: str) -> str:
    value = f"ifnull({column}, '')" if column in _MAPS else column
    return f"cast(group_concat({value}, '{_DIVIDER}') as blob)"


def _divided(
    stream: Stream, count: int, first: int, last: int, numbers: str | None, *joined: bytes
) -> StoredItems | None:
    """The items of joined columns; None if these cannot be divided again."""
    if not count:
        return StoredItems.of_rows(stream, [])
    divider = _DIVIDER.encode()
    texts = [column.split(divider) for column in joined]
    if numbers is not None:
        sequences: Sequence[int] = list(map(int, numbers.split(",")))
    elif last - first + 1 == count:
        sequences = range(first, last + 1)
    else:
        return None  # somebody has removed rows
    if any(len(column) != count for column in texts):
        return None  # a text has the divider in it
    return StoredItems(stream, sequences, texts, sum(map(len, joined)))
