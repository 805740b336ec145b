"""How stored records that a selector wants are found without looking at those that it does not.

A table has an index on its keys, and logs have one on their levels. A walk is one place in such an
index, from which wanted records follow by sequence. A selector comes to as many walks as there are
keys that it means; these are looked up by hops along the index, from key to key, only where the
text before the first wildcard says that they may be. What it costs depends on how many keys that
are, not on how many records are stored.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from typing import Any, NamedTuple

from streamkit.journal.base import Selector, Stream
from streamkit.journal.sqlite.levels import known_from
from streamkit.journal.sqlite.schema import TABLES
from streamkit.patterns import literal_prefix
from streamkit.terms import LEVELS

__all__ = ["KEYS", "Walks", "keys_of", "walks_of"]

KEYS = {Stream.UPDATES: "topic", Stream.LOGS: "service", Stream.JOBS: "job_id"}
"""Of each stream's table, the column with the key."""

_MOST_KEYS = 4096
"""Keys that are looked up; with more, a walk along the sequences is as good."""
_MOST_MERGED = 32
"""Walks that SQLite merges in one statement."""


class Walks(NamedTuple):
    """All places from which a selector's records follow, in one index.

    `complete_from`: the index holds every record from this sequence on.
    """

    table: str
    columns: tuple[str, ...]
    places: list[tuple[Any, ...]]
    complete_from: int = 0

    @property
    def are_few(self) -> bool:
        """Whether they can be merged in one statement."""
        return len(self.places) <= _MOST_MERGED

    def merged(self, bounds: str, values: tuple[Any, ...]) -> tuple[str, list[Any]]:
        """One SELECT of all sequences within bounds, to be ordered, and its parameters."""
        where = " and ".join(f"{column} = ?" for column in self.columns)
        one = f"select sequence from {self.table} where {where} and {bounds}"
        parts = [one] * len(self.places) or [f"select sequence from {self.table} where false"]
        return " union all ".join(parts), [v for place in self.places for v in (*place, *values)]

    def next_after(self, connection: sqlite3.Connection, after: int) -> int | None:
        """The first sequence after one that any walk comes to."""
        ends = self._ends(connection, "min(sequence)", "sequence > ?", after)
        return min((end for end in ends if end is not None), default=None)

    def nth_before(
        self, connection: sqlite3.Connection, count: int, newest: int
    ) -> tuple[int | None, int]:
        """Count back from a sequence: the one arrived at, and how many are then left to count."""
        if self.are_few:
            source, parameters = self.merged("sequence <= ?", (newest,))
            first, found = connection.execute(
                f"select min(sequence), count(*) from ({source} order by sequence desc limit ?)",
                (*parameters, count),
            ).fetchone()
            return first, count - found
        ends = self._ends(connection, "max(sequence)", "sequence <= ?", newest)
        heap = [(-end, place) for end, place in zip(ends, self.places, strict=True) if end]
        heapq.heapify(heap)
        where = " and ".join(f"{column} = ?" for column in self.columns)
        before = f"select max(sequence) from {self.table} where {where} and sequence < ?"
        first = None
        while heap and count:
            end, place = heap[0]
            first, count = -end, count - 1
            (further,) = connection.execute(before, (*place, first)).fetchone()
            if further is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (-further, place))
        return first, count

    def _ends(
        self, connection: sqlite3.Connection, what: str, bounds: str, value: int
    ) -> list[int | None]:
        """Of each walk the first or last sequence within bounds, in one statement."""
        where = " and ".join(
            f"{column} = json_extract(place.value, '$[{n}]')"
            for n, column in enumerate(self.columns)
        )
        found = connection.execute(
            f"select (select {what} from {self.table} where {where} and {bounds})"
            " from json_each(?) as place order by place.key",
            (value, json.dumps(self.places)),
        )
        return [end for (end,) in found]


def walks_of(connection: sqlite3.Connection, selector: Selector) -> Walks | None:
    """The walks that a selector comes to; None if there are too many, or none to leave out."""
    stream = selector.stream
    table = TABLES[stream]
    ranks = range(selector.min_rank, len(LEVELS)) if stream is Stream.LOGS else range(1)
    if selector.every_key():
        if stream is not Stream.LOGS or not selector.min_rank:
            return None
        places = [(rank,) for rank in ranks]
        return Walks("log_levels", ("severity",), places, known_from(connection))
    keys = keys_of(connection, selector)
    if keys is None:
        return None
    if stream is Stream.LOGS:
        pairs = [(key, rank) for key in keys for rank in ranks]
        return Walks(table, ("service", "severity"), pairs)
    return Walks(table, (KEYS[stream],), [(key,) for key in keys])


def keys_of(
    connection: sqlite3.Connection, selector: Selector, most: int = _MOST_KEYS
) -> list[str] | None:
    """The stored keys that a selector means, None if too many have to be looked at."""
    table = TABLES[selector.stream]
    if selector.exact():
        return sorted(set(selector.patterns))
    rank = len(LEVELS)
    found: set[str] = set()
    looked_at = 0
    for prefix in _outermost(sorted({literal_prefix(p) for p in selector.patterns})):
        keys = _distinct(connection, table, KEYS[selector.stream], prefix, most - looked_at)
        if keys is None:
            return None
        looked_at += len(keys) + 1
        found.update(key for key in keys if selector.matches(key, rank))
        if looked_at > most:
            return None
    return sorted(found)


def _outermost(prefixes: list[str]) -> list[str]:
    """Of sorted prefixes those that no other one covers."""
    kept: list[str] = []
    for prefix in prefixes:
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


def _distinct(
    connection: sqlite3.Connection, table: str, key: str, prefix: str, most: int
) -> list[str] | None:
    """The keys that begin so, by so many hops along the index as there are; None for too many."""
    inside = f"substr({key}, 1, {len(prefix)}) = :prefix"
    found = connection.execute(
        f"with recursive keys(name) as (select min({key}) from {table} where {key} >= :prefix"
        " union all"
        f" select (select min({key}) from {table} where {key} > name) from keys"
        f" where {inside.replace(key, 'name')})"
        f" select name from keys where {inside.replace(key, 'name')} limit :most",
        {"prefix": prefix, "most": most + 1},  # by number a sequence is refused from 3.14 on
    ).fetchall()
    return None if len(found) > most else [name for (name,) in found]
