"""Python values out of the canonical text of a result, as the columns' types say.

    integers                  int
    reals                     float
    numeric, decimal          Decimal
    boolean                   bool
    blob, bytea, binary       bytes
    date, time, timestamp     date, time, datetime; with a time zone in UTC
    uuid                      UUID
    anything else             str

SQLite types values, not columns: a value that is not of its column's type stays the text that it
is. So does what Python has no room for, such as a day beyond the year 9999.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from streamkit.generated.streamservice import Column

__all__ = ["Family", "RowValues", "family_of"]

_PARAMETERS = re.compile(r"[\s\[(].*", re.DOTALL)
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


class Family(str):
    """A kind of values, by name."""


INTEGER, REAL, DECIMAL = Family("integer"), Family("real"), Family("decimal")
BOOLEAN, BINARY, TEXT, OTHER = Family("boolean"), Family("binary"), Family("text"), Family("other")
DATE, TIME, TIMESTAMP, IDENTIFIER = (
    Family("date"),
    Family("time"),
    Family("timestamp"),
    Family("uuid"),
)

_NAMES = {
    INTEGER: """integer int bigint smallint tinyint hugeint uhugeint ubigint uinteger usmallint
        utinyint int2 int4 int8 int16 int32 int64 uint8 uint16 uint32 uint64 oid serial""",
    REAL: "real double float float4 float8 halffloat",
    DECIMAL: "numeric decimal decimal128 decimal256",
    BOOLEAN: "bool boolean",
    BINARY: "blob bytea binary large_binary fixed_size_binary varbinary",
    DATE: "date date32 date64",
    TIME: "time time32 time64",
    TIMESTAMP: "timestamp timestamptz datetime timestamp_s timestamp_ms timestamp_ns",
    IDENTIFIER: "uuid",
    TEXT: "text varchar string large_string bpchar char name json jsonb",
}
_FAMILIES = {name: family for family, names in _NAMES.items() for name in names.split()}
_CONVERTERS: dict[Family, Callable[[str], Any]] = {
    INTEGER: int,
    REAL: float,
    DECIMAL: Decimal,
    BOOLEAN: _TRUTHS.__getitem__,
    BINARY: bytes.fromhex,
    DATE: date.fromisoformat,
    TIME: time.fromisoformat,
    TIMESTAMP: datetime.fromisoformat,
    IDENTIFIER: UUID,
}


def family_of(kind: str) -> Family:
    """What values a column of this type has, in whichever database's words."""
    if kind.rstrip().endswith("[]"):
        return OTHER
    return _FAMILIES.get(_PARAMETERS.sub("", kind.strip().lower()), OTHER)


class RowValues:
    """Turns rows of text into tuples of values, in the order of the columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.names = [column.name for column in columns]
        self._converters = [_CONVERTERS.get(family_of(column.type)) for column in columns]

    def named(self, row: Mapping[str, str]) -> dict[str, Any]:
        """As `of`, by the names of the columns. A server that tells no columns gives its text."""
        if not self.names:
            return dict(row)
        return dict(zip(self.names, self.of(row), strict=True))

    def of(self, row: Mapping[str, str]) -> tuple[Any, ...]:
        """The values of a row; None for NULL."""
        return tuple(
            text if text is None or convert is None else _converted(convert, text)
            for text, convert in zip(map(row.get, self.names), self._converters, strict=True)
        )


def _converted(convert: Callable[[str], Any], text: str) -> Any:
    try:
        return convert(text)
    except (ValueError, KeyError, ArithmeticError):
        return text
