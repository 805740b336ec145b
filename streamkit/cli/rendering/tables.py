"""The rows of a query as a table, streamed: columns are sized by the first batch.

Later cells that are wider are cut on a terminal and left whole in a pipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size

from streamkit.cli.output.formats import ColumnLike, RowWriter, TextOptions
from streamkit.cli.output.sanitise import sanitise

__all__ = ["TableWriter"]

GAP = "  "
NARROW = 4
SAMPLE = 500


class TableWriter(RowWriter):
    """Lines of aligned cells; `width` columns of a terminal, 0 where nothing is cut."""

    def __init__(self, columns: Sequence[ColumnLike], options: TextOptions, width: int = 0) -> None:
        super().__init__(columns, options)
        self.null = "NULL" if options.null is None else options.null
        self._width = width
        self._widths: list[int] = []
        self._right: list[bool] = []

    def rows(self, rows: Sequence[Mapping[str, str]]) -> str:
        cells = [[_shown(cell) for cell in self.cells(row)] for row in rows]
        lead = ""
        if not self._widths and self.names:
            self._measure(cells[:SAMPLE])
            lead = self._heading()
        return lead + "".join(map(self._line, cells))

    def end(self) -> str:
        # An empty result shows its columns all the same.
        return self.rows([]) if not self._widths else ""

    def _measure(self, cells: list[list[str]]) -> None:
        names = [_shown(name) for name in self.names] if self.options.header else []
        table = ([names] if names else []) + cells
        for index in range(len(self.names)):
            self._widths.append(max((cell_len(row[index]) for row in table), default=NARROW))
            known = [row[index] for row in cells if row[index] != self.null]
            self._right.append(bool(known) and all(map(_is_number, known)))
        # The widest column gives way first, so that the narrow ones stay readable.
        room = self._width - len(GAP) * (len(self._widths) - 1)
        while self._width and sum(self._widths) > room and max(self._widths) > NARROW:
            widest = self._widths.index(max(self._widths))
            others = sorted(self._widths)[-2] if len(self._widths) > 1 else NARROW
            excess = sum(self._widths) - room
            self._widths[widest] -= min(excess, max(1, self._widths[widest] - others))
            self._widths[widest] = max(NARROW, self._widths[widest])

    def _heading(self) -> str:
        if not self.options.header:
            return ""
        names = [_shown(name) for name in self.names]
        return self._line(names) + GAP.join("-" * width for width in self._widths) + "\n"

    def _line(self, cells: list[str]) -> str:
        shown = []
        for cell, width, right in zip(cells, self._widths, self._right, strict=True):
            length = cell_len(cell)
            if length > width:
                if self._width:
                    cell = set_cell_size(cell, width - 1) + "…"
            elif right:
                cell = " " * (width - length) + cell
            else:
                cell += " " * (width - length)
            shown.append(cell)
        return GAP.join(shown).rstrip() + "\n"


def _shown(cell: str) -> str:
    """A cell is one line, and as wide as it is long: no tabs."""
    return sanitise(cell).replace("\t", "\\x09")


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).removeprefix("-").isdigit()
