"""Rows of a query -> text, one writer for each output format. Pure: batch in, text out.

A row is a mapping in which NULL is an absent key; the columns give the order. JSON values are
numbers and booleans where the column's type says so and the text is one; whole numbers that a
JSON reader would round and decimals stay text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamkit.sanitise import json_text

__all__ = ["FORMATS", "TEXT_FORMATS", "ColumnLike", "RowWriter", "TextOptions", "writer_for"]

Row = Mapping[str, str]


class ColumnLike(Protocol):
    """A column of a result: the generated Column has this shape."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """What the formats let a person choose."""

    header: bool = True
    null: str | None = None
    """How NULL is written; None leaves it to the format."""


class RowWriter:
    """One result in one format: `begin` once, `rows` for every batch, `end` when it is complete."""

    def __init__(self, columns: Sequence[ColumnLike], options: TextOptions) -> None:
        self.names = [column.name for column in columns]
        self.types = [column.type for column in columns]
        self.options = options
        self.null = options.null or ""

    def begin(self) -> str:
        return ""

    def rows(self, rows: Sequence[Row]) -> str:
        raise NotImplementedError

    def end(self) -> str:
        return ""

    def cells(self, row: Row) -> list[str]:
        """The texts of one row in the order of the columns."""
        return [row.get(name, self.null) for name in self.names]


class _Csv(RowWriter):
    """RFC 4180. As in PostgreSQL's COPY, a text that reads like NULL is quoted and NULL is not."""

    def begin(self) -> str:
        return self._line([_quoted(name) for name in self.names]) if self.options.header else ""

    def rows(self, rows: Sequence[Row]) -> str:
        null, names = self.null, self.names
        return "".join(
            [
                self._line(
                    [_quoted(row[name], null) if name in row else null for name in names],
                )
                for row in rows
            ]
        )

    @staticmethod
    def _line(cells: list[str]) -> str:
        # Many readers pass over a line without anything, and a row with it.
        return ",".join(cells) + "\n" if cells != [""] else '""\n'


_TO_QUOTE = re.compile('[",\r\n]')


def _quoted(cell: str, null: str | None = None) -> str:
    """A cell of CSV; the csv module of some Pythons leaves a lone CR unquoted."""
    if cell != null and _TO_QUOTE.search(cell) is None:
        return cell
    return '"' + cell.replace('"', '""') + '"'


_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class _Tsv(RowWriter):
    """Escapes as PostgreSQL's COPY does; NULL is \\N."""

    def __init__(self, columns: Sequence[ColumnLike], options: TextOptions) -> None:
        super().__init__(columns, options)
        self.null = "\\N" if options.null is None else options.null

    def begin(self) -> str:
        return self._line([name.translate(_TSV_ESCAPES) for name in self.names], True)

    def rows(self, rows: Sequence[Row]) -> str:
        return "".join(
            self._line(
                [
                    row[name].translate(_TSV_ESCAPES) if name in row else self.null
                    for name in self.names
                ]
            )
            for row in rows
        )

    def _line(self, cells: list[str], is_header: bool = False) -> str:
        return "" if is_header and not self.options.header else "\t".join(cells) + "\n"


_MARKDOWN_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "<br>", "\r": ""})


class _Markdown(RowWriter):
    def begin(self) -> str:
        return self._line(self.names) + self._line(["---"] * len(self.names))

    def rows(self, rows: Sequence[Row]) -> str:
        return "".join(self._line(self.cells(row)) for row in rows)

    @staticmethod
    def _line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.translate(_MARKDOWN_ESCAPES) for cell in cells)} |\n"


_INTEGER = re.compile(r"u?(?:tiny|small|medium|big)?int(?:eger|8|16|32|64|2|4)?", re.IGNORECASE)
_REAL = re.compile(r"(?:real|float(?:4|8|16|32|64)?|double(?: precision)?)", re.IGNORECASE)
_SAFE_INTEGER = 2**53


def _json_integer(text: str) -> object:
    try:
        number = int(text)
    except ValueError:
        return text
    return number if -_SAFE_INTEGER <= number <= _SAFE_INTEGER else text


def _json_real(text: str) -> object:
    try:
        number = float(text)
    except ValueError:
        return text
    # JSON has no NaN and no infinities.
    return number if number - number == 0 else None


def _json_boolean(text: str) -> object:
    return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)


def _json_value(kind: str) -> Callable[[str], object]:
    if _INTEGER.fullmatch(kind):
        return _json_integer
    if _REAL.fullmatch(kind):
        return _json_real
    return _json_boolean if kind.lower() in ("bool", "boolean") else str


class _JsonLines(RowWriter):
    def __init__(self, columns: Sequence[ColumnLike], options: TextOptions) -> None:
        super().__init__(columns, options)
        self._convert = [
            (name, _json_value(kind)) for name, kind in zip(self.names, self.types, strict=True)
        ]

    def rows(self, rows: Sequence[Row]) -> str:
        return "".join(self.object(row) + "\n" for row in rows)

    def object(self, row: Row) -> str:
        return json_text(
            {name: convert(row[name]) if name in row else None for name, convert in self._convert}
        )


class _Json(_JsonLines):
    """One array, one object a line. It is closed only when the result is complete."""

    _started = False

    def begin(self) -> str:
        return "["

    def rows(self, rows: Sequence[Row]) -> str:
        if not rows:
            return ""
        lead = ",\n" if self._started else "\n"
        self._started = True
        return lead + ",\n".join(self.object(row) for row in rows)

    def end(self) -> str:
        return "\n]\n"


class _Vertical(RowWriter):
    """A row after the other, a column a line: for many columns, or long ones."""

    def __init__(self, columns: Sequence[ColumnLike], options: TextOptions) -> None:
        super().__init__(columns, options)
        self.null = "NULL" if options.null is None else options.null
        self._width = max(map(len, self.names), default=0)
        self._count = 0

    def rows(self, rows: Sequence[Row]) -> str:
        lines = []
        for row in rows:
            self._count += 1
            if self.options.header:
                lines.append(f"--- {self._count} ---\n")
            for name, cell in zip(self.names, self.cells(row), strict=True):
                indented = cell.replace("\n", "\n" + " " * (self._width + 2))
                lines.append(f"{name:<{self._width}}  {indented}\n")
        return "".join(lines)


_WRITERS: dict[str, type[RowWriter]] = {
    "csv": _Csv,
    "tsv": _Tsv,
    "json": _Json,
    "jsonl": _JsonLines,
    "markdown": _Markdown,
    "vertical": _Vertical,
}
TEXT_FORMATS = ("table", *_WRITERS)
FORMATS = (*TEXT_FORMATS, "arrow", "parquet")


def writer_for(
    format_name: str, columns: Sequence[ColumnLike], options: TextOptions | None = None
) -> RowWriter:
    """Return the writer of a text format other than `table`, which `rendering` draws."""
    return _WRITERS[format_name](columns, options or TextOptions())
