"""Rows of text as the bytes of QueryResult.rows, from Python values.

A row is a map<string, string>. In a map entry everything before a value depends on the column and
on the value's length in bytes only, so it is a table look-up: no message object, no field loop.
The vectorised form of the same idea is in arrow_rows.py; both write the same bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from operator import add
from typing import Any, NamedTuple

from streamkit.database.encoding.text import float_text, text_of
from streamkit.errors import LimitError

__all__ = ["Encoded", "EntryHeads", "Piece", "RowEncoder", "cut", "row_head", "varint"]

_REMEMBERED = 16_384
"""Longer values are too rare, and could be too many, to keep what goes before them."""


class Encoded(NamedTuple):
    """Encoded rows back to back: row i is data[ends[i] : ends[i + 1]]."""

    data: bytes | memoryview
    ends: Sequence[int]


class Piece(NamedTuple):
    """The payload of one message and how many rows are in it."""

    data: bytes | memoryview
    rows: int


def varint(number: int) -> bytes:
    """The wire form of an unsigned integer."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class EntryHeads(dict[int, bytes]):
    """One column: length of a value -> everything of its map entry that goes before the value.

    -1 stands for NULL, whose entry is left out.
    """

    def __init__(self, name: str) -> None:
        key = name.encode(errors="replace")
        self._key = b"\x0a" + varint(len(key)) + key + b"\x12"
        self[-1] = b""

    def __missing__(self, length: int) -> bytes:
        value = self._key + varint(length)
        head = b"\x0a" + varint(len(value) + length) + value
        if length < _REMEMBERED:
            self[length] = head
        return head


class _RowHeads(dict[int, bytes]):
    def __missing__(self, length: int) -> bytes:
        head = row_head(length)
        if length < _REMEMBERED:
            self[length] = head
        return head


def row_head(length: int) -> bytes:
    """Field 1 of QueryResult, a row of that many bytes."""
    return b"\x0a" + varint(length)


class RowEncoder:
    """Encodes lists of tuples, column by column."""

    def __init__(self, names: Sequence[str]) -> None:
        self._columns = [EntryHeads(name) for name in names]
        self._rows = _RowHeads()

    def encode(self, rows: Sequence[tuple[Any, ...]]) -> Encoded:
        """Encode at least one row."""
        parts: list[Sequence[bytes | bytearray]] = []
        sizes: list[int] = [0] * len(rows)
        for heads, values in zip(self._columns, zip(*rows, strict=True), strict=True):
            texts, lengths = _texts(values)
            entries = list(map(heads.__getitem__, lengths))
            sizes = list(map(add, sizes, map(add, map(len, entries), map(len, texts))))
            parts += (entries, texts)
        row_heads = list(map(self._rows.__getitem__, sizes))
        ends = accumulate(map(add, sizes, map(len, row_heads)), initial=0)
        data = b"".join(chain.from_iterable(zip(row_heads, *parts, strict=True)))
        return Encoded(data, list(ends))


def _texts(values: Sequence[Any]) -> tuple[list[bytes | bytearray], list[int]]:
    """The values' text as UTF-8 and its lengths; NULL is no bytes with the length -1."""
    kinds = set(map(type, values))
    nulls = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {bytearray} and not nulls and _is_utf8(values):
        texts = list(values)
        return texts, list(map(len, texts))
    if kinds == {int}:
        encoded = [b"" if v is None else b"%d" % v for v in values]
    elif kinds == {float}:
        encoded = [b"" if v is None else float_text(v).encode() for v in values]
    else:
        encoded = [b"" if v is None else text_of(v).encode() for v in values]
    lengths = list(map(len, encoded))
    if nulls:
        lengths = [-1 if v is None else n for v, n in zip(values, lengths, strict=True)]
    return encoded, lengths  # type: ignore[return-value]  # a list of bytes is one of either


def _is_utf8(values: Sequence[bytearray]) -> bool:
    """Look at all values at once; the zero byte between them belongs to no longer character."""
    try:
        b"\0".join(values).decode()
    except UnicodeDecodeError:
        return False
    return True


def cut(encoded: Encoded, rows: int, max_bytes: int) -> Iterator[Piece]:
    """Cut encoded rows into pieces of at most `rows` rows and `max_bytes` bytes, without copying.

    Raises LimitError for a row that is larger than `max_bytes` by itself.
    """
    data, ends = memoryview(encoded.data), encoded.ends
    first, last = 0, len(ends) - 1
    while first < last:
        end = min(first + rows, last)
        if ends[end] - ends[first] > max_bytes:
            end = bisect_right(ends, ends[first] + max_bytes, first, end) - 1
            if end == first:
                size = ends[first + 1] - ends[first]
                raise LimitError(f"a row of {size} bytes is over the {max_bytes} of a message")
        yield Piece(data[ends[first] : ends[end]], end - first)
        first = end
