"""The rows of a query as a table, streamed: columns are sized by the first batch.

On a terminal a column gets what it needs if the others leave that; wide texts give way first, and
numbers never. Columns that have no room left to be read are named below the table instead. Later
cells that are wider are cut on a terminal and left whole in a pipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size

from streamkit.cli import options
from streamkit.cli.output.streams import Output
from streamkit.formats import ColumnLike, RowWriter, TextOptions, writer_for
from streamkit.generated.streamservice import Column
from streamkit.sanitise import sanitise

__all__ = ["TableWriter", "show_table"]

GAP = "  "
NARROW = 4
READABLE = 16
"""Columns of the terminal that a text may always have."""
SAMPLE = 500


def show_table(
    output: Output, form: str, names: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> None:
    """A small table that is there as a whole: for eyes, or as JSON. UsageError for another form."""
    options.one_of("-o", form, options.JSON_FORMATS)
    columns = [Column(name=name, type="text") for name in names]
    writer: RowWriter
    if form == "pretty":
        writer = TableWriter(columns, TextOptions(null=""))
    else:
        writer = writer_for(form, columns)
    output.text(writer.begin() + writer.rows(rows) + writer.end())
    output.flush()


class TableWriter(RowWriter):
    """Lines of aligned cells; `width` columns of a terminal, 0 where nothing is cut."""

    def __init__(self, columns: Sequence[ColumnLike], options: TextOptions, width: int = 0) -> None:
        super().__init__(columns, options)
        self.null = "NULL" if options.null is None else options.null
        self._width = width
        self._widths: list[int] = []
        self._right: list[bool] = []
        self._left_out: list[str] = []

    def rows(self, rows: Sequence[Mapping[str, str]]) -> str:
        cells = [[_shown(cell) for cell in self.cells(row)] for row in rows]
        lead = ""
        if not self._widths and self.names:
            self._measure(cells[:SAMPLE])
            lead = self._heading()
        return lead + "".join(map(self._line, cells))

    def end(self) -> str:
        # An empty result shows its columns all the same.
        lead = self.rows([]) if not self._widths else ""
        if not self._left_out:
            return lead
        names = ", ".join(map(_shown, self._left_out))
        more = f"... {len(self._left_out)} more column{'s' if len(self._left_out) > 1 else ''}"
        return f"{lead}{more}: {names}; -o vertical shows all\n"

    def _measure(self, cells: list[list[str]]) -> None:
        names = [_shown(name) for name in self.names] if self.options.header else []
        table = ([names] if names else []) + cells
        for index in range(len(self.names)):
            self._widths.append(max((cell_len(row[index]) for row in table), default=NARROW))
            known = [row[index] for row in cells if row[index] != self.null]
            self._right.append(bool(known) and all(map(_is_number, known)))
        if self._width:
            self._fit(self._width)

    def _fit(self, width: int) -> None:
        """Give the columns their widths, from the left for as many as can be read."""
        needs = self._widths
        least = [
            need if right else min(need, READABLE)
            for need, right in zip(needs, self._right, strict=True)
        ]
        count, taken = 0, -len(GAP)
        while count < len(needs) and taken + len(GAP) + least[count] <= width:
            taken += len(GAP) + least[count]
            count += 1
        if not count:
            count, least[0] = 1, max(1, width)
            taken = least[0]
        self._left_out = self.names[count:]
        self._widths, self._right = least[:count], self._right[:count]
        # What is left over goes to the columns that need least first: most of them become whole.
        spare = width - taken
        wanting = sorted(range(count), key=lambda index: needs[index] - least[index])
        for place, index in enumerate(wanting):
            more = min(needs[index] - least[index], spare // (count - place))
            self._widths[index] += more
            spare -= more

    def _heading(self) -> str:
        if not self.options.header:
            return ""
        names = [_shown(name) for name in self.names]
        return self._line(names) + GAP.join("-" * width for width in self._widths) + "\n"

    def _line(self, cells: list[str]) -> str:
        shown = []
        for cell, width, right in zip(cells, self._widths, self._right, strict=False):
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
