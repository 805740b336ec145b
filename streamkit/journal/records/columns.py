"""A page of stored records as the columns of its rows.

A reader that only sends records on never looks at one of them: their frames are made of whole
columns, several times as fast as by way of items and messages. Whoever does look finds the items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Self, overload

from streamkit.journal.base import Item, Items, Record, Stream
from streamkit.journal.records.rows import COLUMNS, item_from_row

__all__ = ["StoredItems"]


class StoredItems(Sequence[Item[Record]]):
    """The items of some rows, made when they are looked at."""

    __slots__ = ("_items", "columns", "sequences", "size", "stream")

    def __init__(
        self,
        stream: Stream,
        sequences: Sequence[int],
        columns: Sequence[Sequence[Any]],
        size: int,
    ) -> None:
        self.stream = stream
        self.sequences = sequences
        self.columns = columns
        """After the sequence, in the table's order: key first. Of updates and logs all are UTF-8,
        and a map that is not there is empty."""
        self.size = size
        """About how many bytes all of it is."""
        self._items: Items[Record] | None = None

    @classmethod
    def of_rows(cls, stream: Stream, rows: Sequence[Sequence[Any]], size: int = 0) -> Self:
        """The same from rows as the table has them."""
        if not rows:
            return cls(stream, (), [()] * (len(COLUMNS[stream]) - 1), 0)
        sequences, *columns = zip(*rows, strict=True)
        texts = 1 if stream is Stream.JOBS else len(columns)
        return cls(stream, sequences, [*map(_encoded, columns[:texts]), *columns[texts:]], size)

    @property
    def keys(self) -> Sequence[bytes]:
        """The records' keys, encoded."""
        return self.columns[0]

    def only(self, wanted: Iterable[bool]) -> StoredItems:
        """Those that are wanted."""
        mask = list(wanted)
        sequences, *columns = (list(compress(c, mask)) for c in (self.sequences, *self.columns))
        size = self.size * len(sequences) // max(1, len(mask))
        return StoredItems(self.stream, sequences, columns, size)

    def first(self, count: int) -> StoredItems:
        """So many of them."""
        columns = [column[:count] for column in self.columns]
        size = self.size * count // max(1, len(self))
        return StoredItems(self.stream, self.sequences[:count], columns, size)

    @property
    def items(self) -> Items[Record]:
        if self._items is None:
            build = _BUILD[self.stream]
            self._items = Items(map(build, zip(self.sequences, *self.columns, strict=True)))
        return self._items

    def __len__(self) -> int:
        return len(self.sequences)

    @overload
    def __getitem__(self, index: int) -> Item[Record]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item[Record]]: ...
    def __getitem__(self, index: int | slice) -> Item[Record] | Sequence[Item[Record]]:
        return self.items[index]

    def __iter__(self) -> Iterator[Item[Record]]:
        return iter(self.items)


def _encoded(column: Iterable[Any]) -> list[bytes]:
    return [b"" if value is None else str(value).encode() for value in column]


def _update(row: Sequence[Any]) -> Item[Record]:
    sequence, *texts = row
    *values, metadata = map(bytes.decode, texts)
    return item_from_row[Stream.UPDATES]((sequence, *values, metadata or None))


def _log(row: Sequence[Any]) -> Item[Record]:
    sequence, *texts = row
    service, level, severity, time, message, fields = map(bytes.decode, texts)
    values = (service, level, int(severity), time, message, fields or None)
    return item_from_row[Stream.LOGS]((sequence, *values))


def _event(row: Sequence[Any]) -> Item[Record]:
    sequence, job_id, *values = row
    return item_from_row[Stream.JOBS]((sequence, job_id.decode(), *values))


_BUILD: dict[Stream, Callable[[Sequence[Any]], Item[Record]]] = {
    Stream.UPDATES: _update,
    Stream.LOGS: _log,
    Stream.JOBS: _event,
}
