"""Retention by pattern: what the rules say is too old, too much, or not among the last of its key.

The first rule that means a key decides about it, and none keeps what the bounds of the whole store
remove. What rules remove leaves holes: sequences stay what they are. Their work is one generator,
a step of which removes some hundred records of one key in a transaction of its own; between the
steps the store is written to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from streamkit.config import RetentionRule
from streamkit.journal.base import Pruned, Selector, Stream
from streamkit.journal.records.items import text_of
from streamkit.journal.sqlite.schema import TABLES
from streamkit.journal.sqlite.sizes import MEASURES
from streamkit.journal.sqlite.walks import KEYS, Walks, keys_of

__all__ = ["Remove", "Rules", "forecast"]

_INTERVAL = timedelta(seconds=10)
_CHUNK = 500

Remove = Callable[[Stream, str, tuple[object, ...]], None]
"""Removes the records of a stream that a condition names, in a transaction."""


class Rules:
    """The rules of one store. `look` finds work when it is time, `step` does some of it."""

    def __init__(
        self, connection: sqlite3.Connection, rules: tuple[RetentionRule, ...], remove: Remove
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._remove = remove
        self._looked: datetime | None = None
        self._work: Iterator[None] | None = None
        self._sizes: dict[RetentionRule, tuple[int, int]] = {}
        """Of each rule with a bound in bytes: what there was, up to which sequence."""

    def look(self, now: datetime) -> None:
        if self._rules and (self._looked is None or now - self._looked >= _INTERVAL):
            self._looked = now
            self._work = self._apply(now)

    def restart(self, looked: datetime | None) -> None:
        """Forget what was begun; they were last applied then."""
        self._looked = looked
        self._work = None

    @property
    def working(self) -> bool:
        """Whether there is something left to do."""
        return self._work is not None

    def step(self) -> bool:
        """False if there is nothing left to do. Raises sqlite3.Error."""
        if self._work is None:
            return False
        try:
            next(self._work)
        except StopIteration:
            self._work = None
            return False
        except BaseException:
            self._work = None
            raise
        return True

    def _apply(self, now: datetime) -> Iterator[None]:
        for rule, stream, keys in _decided(self._connection, self._rules):
            for key in keys:
                cut = _cut(self._connection, rule, stream, key, now)
                while self._remove_before(stream, key, cut):
                    yield
            if rule.max_bytes:
                yield from self._shrink(rule, stream, keys)

    def _remove_before(self, stream: Stream, key: str, cut: int) -> bool:
        table, column = TABLES[stream], KEYS[stream]
        row = self._connection.execute(
            f"select max(sequence) from (select sequence from {table} where {column} = ?"
            f" and sequence < ? order by sequence limit {_CHUNK})",
            (key, cut),
        ).fetchone()
        if row[0] is None:
            return False
        self._remove(stream, f"{column} = ? and sequence <= ?", (key, row[0]))
        return True

    def _shrink(self, rule: RetentionRule, stream: Stream, keys: list[str]) -> Iterator[None]:
        """Bring the keys of a rule below its bytes, the oldest first. Only what is new since the
        last time is measured."""
        table = TABLES[stream]
        execute = self._connection.execute
        size, seen = self._sizes.get(rule, (0, 0))
        newest = execute(f"select ifnull(max(sequence), 0) from {table}").fetchone()[0]
        for key in keys:
            size += _measured(self._connection, stream, key, seen, newest)[1]
        seen = newest
        if size > rule.max_bytes:  # what the bounds of the whole store removed was not noticed
            size = 0
            for key in keys:
                size += _measured(self._connection, stream, key, 0, newest)[1]
                yield
        while size > rule.max_bytes:
            walks = _walks(stream, keys)
            first = walks.next_after(self._connection, 0)
            if first is None:
                break
            # About as many of the sequences as there is too much of the bytes, in small steps.
            excess = (newest - first + 1) * (size - rule.max_bytes) // size
            end = first + max(1, min(_CHUNK, excess))
            for key in keys:
                gone = _measured(self._connection, stream, key, 0, end - 1)[1]
                if gone and self._remove_before(stream, key, end):
                    size -= gone
                    yield
                if size <= rule.max_bytes:
                    break
        self._sizes[rule] = (max(0, size), seen)


def forecast(
    connection: sqlite3.Connection, rules: tuple[RetentionRule, ...], now: datetime
) -> list[Pruned]:
    """What each rule would remove now."""
    found = []
    for rule, stream, keys in _decided(connection, rules):
        records = size = left = 0
        for key in keys:
            cut = _cut(connection, rule, stream, key, now)
            count, measured = _measured(connection, stream, key, 0, cut - 1)
            records, size = records + count, size + measured
            if rule.max_bytes:
                left += _measured(connection, stream, key, cut - 1, 1 << 62)[1]
        if rule.max_bytes and left > rule.max_bytes:
            size += left - rule.max_bytes
        found.append(Pruned(stream, rule.pattern, records, size))
    return found


def _decided(
    connection: sqlite3.Connection, rules: tuple[RetentionRule, ...]
) -> Iterator[tuple[RetentionRule, Stream, list[str]]]:
    """Each rule and the stored keys that it decides about."""
    taken: dict[Stream, list[Selector]] = {}
    for rule in rules:
        stream = Stream(rule.stream)
        selector = Selector(stream, (rule.pattern,))
        before = taken.setdefault(stream, [])
        keys = keys_of(connection, selector, 1 << 62) or []
        yield rule, stream, [key for key in keys if not any(s.matches(key, 9) for s in before)]
        before.append(selector)


def _walks(stream: Stream, keys: list[str]) -> Walks:
    table = TABLES[stream]
    if stream is Stream.LOGS:
        places = [(key, severity) for key in keys for severity in range(4)]
        return Walks(table, ("service", "severity"), places)
    return Walks(table, (KEYS[stream],), [(key,) for key in keys])


def _cut(
    connection: sqlite3.Connection, rule: RetentionRule, stream: Stream, key: str, now: datetime
) -> int:
    """The sequence before which the records of a key are not kept."""
    cut = 0
    if rule.max_age:
        # A mark stands for its second: what came before it is older.
        horizon = text_of(now - timedelta(seconds=rule.max_age))
        (marked,) = connection.execute(
            "select max(sequence) from marks where stream = ? and time <= ?", (stream, horizon)
        ).fetchone()
        cut = marked or 0
    if rule.keep_last:
        first, left = _walks(stream, [key]).nth_before(connection, rule.keep_last, 1 << 62)
        if not left and first is not None:
            cut = max(cut, first)
    return cut


def _measured(
    connection: sqlite3.Connection, stream: Stream, key: str, after: int, to: int
) -> tuple[int, int]:
    """How many records of a key there are in a range, and their bytes."""
    table = TABLES[stream]
    count, size = connection.execute(
        f"select count(*), ifnull(sum({MEASURES[table]}), 0) from {table}"
        f" where {KEYS[stream]} = ? and sequence > ? and sequence <= ?",
        (key, after, to),
    ).fetchone()
    return count, size
