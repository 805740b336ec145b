"""Arrow record batches: made of SQLite's rows, and written as Arrow IPC payloads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from streamkit.database.base import Result
from streamkit.database.encoding.rows import Piece
from streamkit.database.encoding.text import text_of
from streamkit.database.extras import library
from streamkit.errors import LimitError, QueryError

__all__ = ["RowBatches", "ipc_pieces", "text_batch"]


def text_batch(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> Any:
    """Return rows as a record batch to be turned into text: types as these rows need them."""
    pa = library("pyarrow")
    columns = [_column(values, None) for values in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=list(names))


class RowBatches:
    """Record batches of one schema out of rows whose database types values, not columns.

    The first rows decide: all integers, all reals (or both), text, blobs; what is mixed or only
    NULL is text, which holds everything. A later value that does not fit is a QueryError.
    """

    def __init__(self, result: Result) -> None:
        self.schema: Any = None
        self._result = result

    def record_batch(self, size: int, max_bytes: int) -> Any | None:
        """As of a Result that has record batches; the first call sets `schema`."""
        pa = library("pyarrow")
        rows = self._result.rows(size, max_bytes)
        names = [column.name for column in self._result.columns]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
        if self.schema is None:
            kinds = map(_column_type, columns)
            self.schema = pa.schema(list(zip(names, kinds, strict=True)))
        if not rows:
            return None
        arrays = [
            _fitting(field, values) for field, values in zip(self.schema, columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _fitting(field: Any, values: Sequence[Any]) -> Any:
    pa = library("pyarrow")
    try:
        return _column(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError):
        raise QueryError(
            f"column {field.name!r} begins as {field.type} and changes later:"
            " cast it in the query to the type that it is to have"
        ) from None


def _column_type(values: Sequence[Any]) -> Any:
    pa = library("pyarrow")
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int}:
        return pa.int64()
    if kinds and kinds <= {int, float}:
        return pa.float64()
    return pa.binary() if kinds == {bytes} else pa.string()


def _column(values: Sequence[Any], kind: Any) -> Any:
    """Values as an array of that type; without a type, of one that they fit or else as text."""
    pa = library("pyarrow")
    kinds = set(map(type, values)) - {type(None)}
    if kind is None:
        kind = _column_type(values) if len(kinds) == 1 else pa.string()
    if kind == pa.string():
        if kinds <= {bytearray, str}:
            try:
                return pa.array(values, kind)
            except (pa.ArrowInvalid, UnicodeError):
                pass  # not UTF-8: value by value, with replacement
        values = [None if v is None else text_of(v) for v in values]
    return pa.array(values, kind)


def ipc_pieces(batch: Any, rows: int, max_bytes: int) -> Iterator[Piece]:
    """Cut a record batch into IPC messages of at most that many rows and bytes.

    Raises LimitError for a row that is larger than `max_bytes` by itself.
    """
    ipc = library("pyarrow.ipc")
    first = 0
    while first < batch.num_rows:
        part = batch.slice(first, rows)
        while (size := ipc.get_record_batch_size(part)) > max_bytes:
            if part.num_rows == 1:
                raise LimitError(f"a row of {size} bytes is over the {max_bytes} of a message")
            part = part.slice(0, max(1, min(part.num_rows // 2, part.num_rows * max_bytes // size)))
        yield Piece(memoryview(part.serialize()), part.num_rows)
        first += part.num_rows
