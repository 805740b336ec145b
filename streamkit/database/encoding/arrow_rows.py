"""Rows of text as the bytes of QueryResult.rows, vectorised: no Python per row or value.

The idea is that of rows.py: what goes before a value in its map entry is looked up by the value's
length. Here the look-up is one `take` per column, the length of a row is a sum of columns, and one
join writes all the rows; its data buffer is the messages' payload, its offsets are the places to
cut at. The kernels cost some microseconds a call, so several thousand rows go into one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from streamkit.database.encoding.arrow_text import text_array
from streamkit.database.encoding.rows import Encoded, EntryHeads, row_head
from streamkit.database.extras import library

__all__ = ["ArrowRowEncoder"]

_TABLE_LENGTHS = 128
_TABLE_MOST = 2048
"""A table doubles when values are longer; the longest ones, rare, take another way: Python once
for each distinct length."""


class ArrowRowEncoder:
    """Encodes record batches; the same bytes as RowEncoder writes for the same values."""

    def __init__(self, names: Sequence[str]) -> None:
        pa = library("pyarrow")
        self._names = list(names)
        self._columns = [_Column(name) for name in names]
        self._row_heads = _Table(row_head, pa.binary())

    def encode(self, batch: Any) -> Encoded:
        """Encode a record batch of at least one row."""
        pa, pc = library("pyarrow"), library("pyarrow.compute")
        parts: list[Any] = []
        sizes = None
        for name, column, array in zip(self._names, self._columns, batch.columns, strict=True):
            head, value, size = column.entries(text_array(array, name))
            parts += (head, value)
            sizes = size if sizes is None else pc.add(sizes, size)
        if sizes is None:
            sizes = pa.array([0] * batch.num_rows, pa.int32())
        heads = self._row_heads.take(sizes, pc.max(sizes).as_py())
        rows = pc.binary_join_element_wise(heads, *parts, pa.scalar(b"", pa.binary()))
        _, ends, data = rows.buffers()
        offsets = memoryview(ends).cast("i")[rows.offset : rows.offset + len(rows) + 1]
        return Encoded(memoryview(data), offsets)


class _Column:
    """The look-up tables of one column. Index 0 is NULL, n + 1 a value of n bytes."""

    def __init__(self, name: str) -> None:
        pa = library("pyarrow")
        self._heads = EntryHeads(name)
        self._head_table = _Table(self._head, pa.binary())
        self._size_table = _Table(self._size, pa.int32())

    def entries(self, text: Any) -> tuple[Any, Any, Any]:
        """For each value: what goes before it, its bytes, and the size of both."""
        pa, pc = library("pyarrow"), library("pyarrow.compute")
        value = text.view(pa.binary())
        index = pc.add(pc.binary_length(value), pa.scalar(1, pa.int32()))
        if text.null_count:
            index = pc.fill_null(index, pa.scalar(0, pa.int32()))
            value = pc.fill_null(value, pa.scalar(b"", pa.binary()))
        most = pc.max(index).as_py()
        return self._head_table.take(index, most), value, self._size_table.take(index, most)

    def _head(self, index: int) -> bytes:
        return self._heads[index - 1]

    def _size(self, index: int) -> int:
        return len(self._heads[index - 1]) + max(index - 1, 0)


class _Table:
    """The values of a function of small integers, for a whole column of them at once."""

    def __init__(self, function: Callable[[int], Any], kind: Any) -> None:
        self._function = function
        self._kind = kind
        self._values = self._made(range(_TABLE_LENGTHS))

    def take(self, index: Any, most: int) -> Any:
        """Return the value for each element of `index`, of which `most` is the greatest."""
        pc = library("pyarrow.compute")
        if len(self._values) <= most < _TABLE_MOST:
            length = len(self._values)
            while length <= most:
                length *= 2
            self._values = self._made(range(length))
        if most < len(self._values):
            return pc.take(self._values, index, boundscheck=False)
        distinct = index.dictionary_encode()
        return self._made(distinct.dictionary.to_pylist()).take(distinct.indices)

    def _made(self, arguments: Iterable[int]) -> Any:
        return library("pyarrow").array([self._function(n) for n in arguments], self._kind)
