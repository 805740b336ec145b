"""Pages of stored records, for readers that are behind what is in memory.

A page is one short statement, so that it holds back no checkpoint, and a single step of SQLite:
the sqlite3 module lets go of the interpreter lock at every step, and to get it back next to a busy
loop can take milliseconds. So SQLite joins each column of the page to one value, which is split
here, or makes JSON of the rows where that will not do.

A selector that comes to a few keys or levels is a merge of index walks (walks.py), whose cost is
bounded by what is wanted and not by what is stored; any other goes along the sequences, a bounded
number a time, and from one wanted record to the next where these are rare. So does, for as long as
that holds, one that wants nearly everything.
"""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from streamkit.journal.base import Record, Selector, Stream
from streamkit.journal.live.reader import Page
from streamkit.journal.live.ring import BATCH_BYTES, BATCH_RECORDS
from streamkit.journal.records.columns import StoredItems
from streamkit.journal.records.rows import COLUMNS
from streamkit.journal.sqlite.schema import TABLES
from streamkit.journal.sqlite.walks import Walks, walks_of

__all__ = ["LONGEST", "Pages"]

LONGEST = 16 * 1024 * 1024
"""Bytes that one value of a page may have."""

_NO_LIMIT = 1_000_000_000
_SPAN = 16 * BATCH_RECORDS
"""Records that are looked at for a page, before the reader is told how far it is."""
_PAGE_BYTES = BATCH_BYTES // 2
"""Of text in one page, unless it is a single record."""
_STATES = 1024
_DIVIDER = "\x1e"
"""Between the values of a joined column. A page in which it occurs takes the longer way."""
_MAPS = ("metadata", "fields")


class Pages:
    """Reads pages. Keeps for each selector how it got on lately."""

    def __init__(self) -> None:
        self._states: dict[int, _State] = {}  # by hash: the selectors themselves may be large

    def read(
        self, connection: sqlite3.Connection, selector: Selector, after: int, end: int
    ) -> Page[Record]:
        """Wanted records after a sequence, up to a stored one."""
        known = hash(selector)
        # Two threads may read for one selector: each takes its own state, the last one keeps it.
        state = copy.copy(self._states.get(known)) or _State()
        while True:
            try:
                page = _read(connection, selector, after, end, state)
                break
            except sqlite3.DataError:  # longer than a page may be
                if state.pace == 1:
                    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _NO_LIMIT)
                state.pace = max(1, state.pace // 8)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        if len(self._states) >= _STATES:
            self._states.clear()
        self._states[known] = state
        return page


@dataclass(slots=True)
class _State:
    """How a selector got on: rows of the next page, its walks as of a sequence."""

    pace: int = BATCH_RECORDS
    walks: Walks | None = None
    known_to: int = -1
    dense: bool = False
    """Whether nearly all that the last page went over was wanted."""


def _read(
    connection: sqlite3.Connection, selector: Selector, after: int, end: int, state: _State
) -> Page[Record]:
    """A page out of at most `state.pace` rows; the state is what the next one goes by."""
    pace = state.pace
    if state.known_to <= after:
        state.walks, state.known_to = walks_of(connection, selector), end
    walks = state.walks
    if walks is not None:
        end = min(end, state.known_to)  # keys that came later are not among the walks
        if after + 1 < walks.complete_from:
            end, walks = min(end, walks.complete_from - 1), None
    if walks is not None and not walks.are_few:
        if pace == _SPAN:  # few are wanted: on to the next one
            following = walks.next_after(connection, after)
            after = end if following is None else max(after, min(following, end) - 1)
        walks = None
    elif state.dense and not selector.min_rank:
        walks = None  # the records one after the other take half the time of an index's
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
    state.pace = pace
    state.dense = 8 * count >= 7 * (covered - after)
    return Page(found, covered, end + 1 if oldest is None else oldest)


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
    walks: Walks | None,
    window: tuple[int, int, int],
) -> tuple[int | None, StoredItems]:
    """The oldest sequence and the rows after, up to, at most: of one snapshot, in one step."""
    stream = selector.stream
    table, columns = TABLES[stream], COLUMNS[stream]
    after, end, limit = window
    along = walks is None and not selector.min_rank
    names = ", ".join(f"{table}.{column}" for column in columns)
    parameters: list[Any]
    if along:
        # As the table has them: no subquery to be gone through once more, and no index to go by.
        source = f"{table} not indexed where sequence > ? and sequence <= ?"
        parameters = [after, end]
    elif walks is None:
        source = (
            f"(select {names} from {table} where severity >= {selector.min_rank}"
            " and sequence > ? and sequence <= ?"
            " order by sequence limit ?)"
        )
        parameters = [after, end, limit]
    else:
        merged, parameters = walks.merged("sequence > ? and sequence <= ?", (after, end))
        source = (
            f"(select {names} from ({merged} order by sequence limit ?) as wanted"
            f" cross join {table} on {table}.sequence = wanted.sequence)"
        )
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
