"""What the server, its nursery and the child processes tell each other; see nursery.py.

A child runs hostile statements, so nothing that comes from one is ever unpickled: a parcel is two
lengths, a JSON object, and the bytes of its pieces back to back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamkit.config import QueryLimits
from streamkit.database.base import ColumnInfo, Source
from streamkit.database.encoding.rows import Piece
from streamkit.errors import StreamkitError, error_named

__all__ = [
    "END",
    "FORK",
    "LENGTHS",
    "LOAD",
    "ORDER",
    "Ended",
    "Household",
    "Parcel",
    "Request",
    "packed",
    "unpacked",
]

ORDER = struct.Struct("!cQ")
FORK, END, LOAD = b"F", b"E", b"L"
"""What the server orders: a child, answered with its number and its socket; the end of the one of
that number; modules to import, their names in so many bytes after the order."""
LENGTHS = struct.Struct("!IQ")
"""Goes before everything: the length of the JSON, and of what follows it."""


class Parcel(NamedTuple):
    """The columns once, at the beginning, and pieces; `last` is set when the end was seen."""

    columns: Sequence[ColumnInfo] | None
    pieces: list[Piece]
    last: bool


class Ended(NamedTuple):
    """Nothing more comes for this request. `answer` is what a question was answered with."""

    error: StreamkitError | None = None
    answer: Any = None
    trace: str = ""
    """Where the error came from, if that is a fault of the server's own."""
    reusable: bool = True
    """Whether the child takes another request."""


class Household(NamedTuple):
    """What a child is told first: the sources by name, and the limits."""

    sources: Mapping[str, Source]
    limits: QueryLimits


class Request(NamedTuple):
    """What a child is to do; pickled, for it comes from the server itself.

    `kind` is rows, count, tables or describe; `plan` a QueryPlan, or the name of a table.
    """

    kind: str
    source: str
    plan: Any = None


def packed(told: Parcel | Ended) -> list[bytes | memoryview]:
    """The bytes of a parcel, or of the end, not joined."""
    data: list[bytes | memoryview] = []
    if isinstance(told, Parcel):
        listed = told.columns
        columns = None if listed is None else [(c.name, c.type, c.nullable) for c in listed]
        pieces = [(len(piece.data), piece.rows) for piece in told.pieces]
        data = [piece.data for piece in told.pieces]
        header: dict[str, Any] = {"columns": columns, "pieces": pieces, "last": told.last}
    else:
        error = told.error
        named = error and (type(error).__name__, error.message, error.hint)
        header = {
            "error": named,
            "answer": told.answer,
            "trace": told.trace,
            "reusable": told.reusable,
        }
    text = json.dumps(header).encode()
    return [LENGTHS.pack(len(text), sum(map(len, data))), text, *data]


def unpacked(header: bytes | memoryview, data: memoryview) -> Parcel | Ended:
    """What `packed` was given; its pieces are views of `data`. Raises ValueError."""
    told = json.loads(bytes(header))
    if "pieces" in told:
        listed = told["columns"]
        columns = None if listed is None else [ColumnInfo(*column) for column in listed]
        pieces, start = [], 0
        for size, rows in told["pieces"]:
            pieces.append(Piece(data[start : start + size], rows))
            start += size
        return Parcel(columns, pieces, told["last"])
    return Ended(_error(told["error"]), told["answer"], told["trace"], told["reusable"])


def _error(named: Sequence[str] | None) -> StreamkitError | None:
    if named is None:
        return None
    name, message, hint = named
    return error_named(name, message, hint)
