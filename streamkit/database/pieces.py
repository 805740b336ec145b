"""From a result to the payloads of messages: windows of rows, encoded at once, cut to batches."""

from __future__ import annotations

from collections.abc import Iterator

from streamkit.config import QueryLimits
from streamkit.database.base import Result
from streamkit.database.plan import QueryPlan
from streamkit.database.rows import Piece, RowEncoder, cut
from streamkit.errors import LimitError

__all__ = ["pieces_of"]

_WINDOW_ROWS = 8192
_WINDOW_BYTES = 2 << 20


def pieces_of(result: Result, plan: QueryPlan, limits: QueryLimits) -> Iterator[list[Piece]]:
    """Start the result and yield its pieces, several at a time. Raises LimitError at a limit."""
    rows = size = 0
    for pieces in _row_pieces(result, plan):
        for index, piece in enumerate(pieces):
            rows += piece.rows
            size += len(piece.data)
            if (limits.max_rows and rows > limits.max_rows) or (
                limits.max_bytes and size > limits.max_bytes
            ):
                yield pieces[:index]
                raise LimitError(_over(limits, rows))
        yield pieces


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


def _row_pieces(result: Result, plan: QueryPlan) -> Iterator[list[Piece]]:
    encoder = RowEncoder([column.name for column in result.columns])
    window_bytes = max(_WINDOW_BYTES, plan.max_message)
    for window in _windows(plan.batch_rows):
        rows = result.rows(window, window_bytes)
        if not rows:
            return
        yield list(cut(encoder.encode(rows), plan.batch_rows, plan.max_message))
