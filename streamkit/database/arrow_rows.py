"""Rows of text as the bytes of QueryResult.rows, vectorised: no Python per row or value.

The idea is that of rows.py: what goes before a value in its map entry is looked up by the value's
length. Here the look-up is one `take` per column, the length of a row is a sum of columns, and one
join writes all the rows; its data buffer is the messages' payload, its offsets are the places to
cut at. The kernels cost some microseconds a call, so several thousand rows go into one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamkit.database.arrow_text import text_array
from streamkit.database.extras import library
from streamkit.database.rows import Encoded, EntryHeads, row_head

__all__ = ["ArrowRowEncoder"]

_TABLE_LENGTHS = 1024
"""Longer values, rare ones, take a second way: Python once per distinct length."""


class ArrowRowEncoder:
    """Encodes record batches; the same bytes as RowEncoder writes for the same values."""

    def __init__(self, names: Sequence[str]) -> None:
        pa = library("pyarrow")
        self._names = list(names)
        self._columns = [_Column(name) for name in names]
        self._row_heads = pa.array([row_head(n) for n in range(4 * _TABLE_LENGTHS)], pa.binary())

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
        heads = _looked_up(self._row_heads, sizes, row_head, pa.binary())
        rows = pc.binary_join_element_wise(heads, *parts, pa.scalar(b"", pa.binary()))
        _, ends, data = rows.buffers()
        offsets = memoryview(ends).cast("i")[rows.offset : rows.offset + len(rows) + 1]
        return Encoded(memoryview(data), offsets)


class _Column:
    """The look-up tables of one column. Index 0 is NULL, n + 1 a value of n bytes."""

    def __init__(self, name: str) -> None:
        pa = library("pyarrow")
        self._heads = EntryHeads(name)
        indexes = range(_TABLE_LENGTHS + 1)
        self._head_table = pa.array([self._head(i) for i in indexes], pa.binary())
        self._size_table = pa.array([self._size(i) for i in indexes], pa.int32())

    def _head(self, index: int) -> bytes:
        return self._heads[index - 1]

    def _size(self, index: int) -> int:
        return len(self._heads[index - 1]) + max(index - 1, 0)

    def entries(self, text: Any) -> tuple[Any, Any, Any]:
        """For each value: what goes before it, its bytes, and the size of both."""
        pa, pc = library("pyarrow"), library("pyarrow.compute")
        value = text.view(pa.binary())
        index = pc.add(pc.binary_length(value), pa.scalar(1, pa.int32()))
        if text.null_count:
            index = pc.fill_null(index, pa.scalar(0, pa.int32()))
            value = pc.fill_null(value, pa.scalar(b"", pa.binary()))
        head = _looked_up(self._head_table, index, self._head, pa.binary())
        return head, value, _looked_up(self._size_table, index, self._size, pa.int32())


def _looked_up(table: Any, index: Any, make: Callable[[int], Any], kind: Any) -> Any:
    pa, pc = library("pyarrow"), library("pyarrow.compute")
    if (pc.max(index).as_py() or 0) < len(table):
        return pc.take(table, index, boundscheck=False)
    distinct = index.dictionary_encode()
    made = pa.array([make(i) for i in distinct.dictionary.to_pylist()], kind)
    return made.take(distinct.indices)
