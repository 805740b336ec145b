"""QueryResult messages written from encoded rows, framed for gRPC, without message objects."""

from __future__ import annotations

from collections.abc import Sequence

from streamkit.database.base import ColumnInfo
from streamkit.database.encoding.rows import Piece, varint
from streamkit.framing import prefix
from streamkit.generated.streamservice import Column, QueryResult

__all__ = ["Messages"]

_BATCH_NUMBER = b"\x10"
_TOTAL_BATCHES = b"\x18"
_IS_LAST = b"\x20\x01"
_ARROW_IPC = b"\x5a"
_TOTAL_ROWS = b"\x60"
_ALIGNED = 8


class Messages:
    """Numbers the batches of one result and writes their messages.

    `batch_rows` is what full batches hold. `total_rows` may be set as soon as a count is known;
    the messages from then on announce it, and how many batches there will be: those sent, and
    full ones for the rest. The last message's figures are what was really sent.
    """

    def __init__(self, *, batch_rows: int, arrow: bool) -> None:
        self.total_rows: int | None = None
        self.rows = 0
        self.number = 0
        self._batch_rows = batch_rows
        self._arrow = arrow
        self._columns = b""

    def announce(self, columns: Sequence[ColumnInfo]) -> None:
        """Put the columns' names and types into the next message."""
        listed = [Column(name=c.name, type=c.type, nullable=c.nullable) for c in columns]
        self._columns = bytes(QueryResult(columns=listed))

    def frames(
        self, pieces: Sequence[Piece], *, last: bool = False
    ) -> bytes | list[bytes | memoryview]:
        """Return the framed messages of these pieces, the final one marked if it is the last.

        Arrow's are not joined: they are large, and none of their bytes is copied here.
        """
        parts: list[bytes | memoryview] = []
        final = len(pieces) - 1
        for index, piece in enumerate(pieces):
            self._append(parts, piece, last and index == final)
        return parts if self._arrow else b"".join(parts)

    def _append(self, parts: list[bytes | memoryview], piece: Piece, last: bool) -> None:
        self.number += 1
        self.rows += piece.rows
        batches, rows = (self.number, self.rows) if last else self._totals()
        number, tail = varint(self.number), b""
        if batches:
            tail += _TOTAL_BATCHES + varint(batches)
        if last:
            tail += _IS_LAST
        tail += self._columns
        self._columns = b""
        size = len(piece.data)
        if not self._arrow:
            tail = _BATCH_NUMBER + number + tail
            if rows:
                tail += _TOTAL_ROWS + varint(rows)
            parts += (prefix(size + len(tail)), piece.data, tail)
            return
        if size:
            tail += _ARROW_IPC + varint(size)
            # Arrow's own bytes begin at a multiple of 8, so that a reader can use them where they
            # are. Every parser takes a number in more bytes than it needs.
            number = _longer(number, -(len(_BATCH_NUMBER) + len(number) + len(tail)) % _ALIGNED)
        tail = _BATCH_NUMBER + number + tail
        end = _TOTAL_ROWS + varint(rows) if rows else b""
        parts += (prefix(len(tail) + size + len(end)) + tail, piece.data, end)

    def _totals(self) -> tuple[int, int]:
        """Batches and rows in all, 0 for not known, given that more are to come."""
        if self.total_rows is None or self.total_rows <= self.rows:
            return 0, 0
        return self.number + -(-(self.total_rows - self.rows) // self._batch_rows), self.total_rows


def _longer(number: bytes, padding: int) -> bytes:
    """A varint's value in `padding` more bytes, as far as a varint may be so long."""
    if not padding or len(number) + padding > 10:
        return number
    return bytes(byte | 0x80 for byte in number) + b"\x80" * (padding - 1) + b"\0"
