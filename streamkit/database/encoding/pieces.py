"""From a result to the payloads of messages: windows of rows, encoded at once, cut to batches."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

from streamkit.config import QueryLimits
from streamkit.database.base import Result
from streamkit.database.encoding.ahead import batches_ahead
from streamkit.database.encoding.arrow_batches import RowBatches, ipc_pieces, text_batch
from streamkit.database.encoding.arrow_rows import ArrowRowEncoder
from streamkit.database.encoding.rows import Piece, RowEncoder, cut
from streamkit.database.extras import has, need
from streamkit.database.plan import QueryPlan
from streamkit.errors import LimitError

__all__ = ["count_of", "pieces_of"]

_WINDOW_ROWS = 8192
_WINDOW_BYTES = 2 << 20
_KERNELS_WORTH = 512
_IMPORT_WORTH = 10_000

Pieces = Generator[tuple[list[Piece], bool], None, None]


def pieces_of(result: Result, plan: QueryPlan, limits: QueryLimits) -> Pieces:
    """Yield the pieces of a started result, several at a time, and whether they are the last.

    The end may also show itself only later, by no more pieces. Raises LimitError at a limit.
    Close the generator before the result.
    """
    rows = size = 0
    with closing(_encoded(result, plan)) as encoded:
        for pieces, last in encoded:
            for index, piece in enumerate(pieces):
                rows += piece.rows
                size += len(piece.data)
                if (limits.max_rows and rows > limits.max_rows) or (
                    limits.max_bytes and size > limits.max_bytes
                ):
                    yield pieces[:index], False
                    raise LimitError(_over(limits, rows))
            yield pieces, last
            if last:
                return


def count_of(result: Result) -> int:
    """The number that a statement of one row and one column gives."""
    if result.arrow:
        batch = result.record_batch(1, 1)
        return int(batch.column(0)[0].as_py()) if batch is not None else 0
    return int(result.rows(1, 1)[0][0])


def _over(limits: QueryLimits, rows: int) -> str:
    if limits.max_rows and rows > limits.max_rows:
        return f"the result has more than {limits.max_rows} rows, the server's limit"
    return f"the result is larger than {limits.max_bytes} bytes, the server's limit"


def _windows(batch_rows: int) -> Iterator[int]:
    """Rows to encode at once: one batch first, for an early answer, then twice as many, and so
    on; always whole batches."""
    batches, most = 1, max(1, _WINDOW_ROWS // batch_rows)
    while True:
        yield batches * batch_rows
        batches = min(2 * batches, most)


def _encoded(result: Result, plan: QueryPlan) -> Pieces:
    if plan.arrow:
        return _arrow_pieces(result, plan)
    if result.arrow:
        return _batch_pieces(result, plan)
    return _row_pieces(result, plan)


def _row_pieces(result: Result, plan: QueryPlan) -> Pieces:
    """Rows of Python values: a long result goes on with Arrow's kernels where pyarrow is there.

    Both encoders write the same bytes. Small windows and small results never pay for its import.
    """
    names = [column.name for column in result.columns]
    encoder = RowEncoder(names)
    vectorised: ArrowRowEncoder | None = None
    seen, window_bytes = 0, max(_WINDOW_BYTES, plan.max_message)
    for window in _windows(plan.batch_rows):
        rows = result.rows(window, window_bytes)
        if not rows:
            return
        seen += len(rows)
        if vectorised is None and seen > _IMPORT_WORTH and has("pyarrow"):
            vectorised = ArrowRowEncoder(names)
        if vectorised is not None and len(rows) >= _KERNELS_WORTH:
            encoded = vectorised.encode(text_batch(rows, names))
        else:
            encoded = encoder.encode(rows)
        yield list(cut(encoded, plan.batch_rows, plan.max_message)), result.finished


def _batch_pieces(result: Result, plan: QueryPlan) -> Pieces:
    encoder = ArrowRowEncoder([column.name for column in result.columns])
    window_bytes = max(_WINDOW_BYTES, plan.max_message)
    with closing(batches_ahead(result, _windows(plan.batch_rows), window_bytes)) as batches:
        for batch, last in batches:
            yield list(cut(encoder.encode(batch), plan.batch_rows, plan.max_message)), last


def _arrow_pieces(result: Result, plan: QueryPlan) -> Pieces:
    """The schema, then record batches. Raises PreconditionError without pyarrow."""
    need("pyarrow", "an Arrow result")
    source = result if result.arrow else RowBatches(result)
    window_bytes = max(_WINDOW_BYTES, plan.max_message)
    announced = False
    for window in _windows(plan.batch_rows):
        batch = source.record_batch(window, window_bytes)
        pieces = [] if announced else [Piece(memoryview(source.schema.serialize()), 0)]
        announced = True
        if batch is not None:
            pieces += ipc_pieces(batch, plan.batch_rows, plan.max_message)
        if pieces:
            yield pieces, result.finished
        if batch is None:
            return
