"""The live table of `top`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamkit.cli.output.streams import Output
from streamkit.cli.rendering.console import console_for
from streamkit.sanitise import sanitise

__all__ = ["live_calls"]

Show = Callable[[Sequence[str], Sequence[Sequence[str]]], None]


@contextmanager
def live_calls(output: Output) -> Iterator[Show]:
    """Show rows in place of the rows before, as many as the terminal has room for."""
    console = console_for(output.stream, output.terminal)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def show(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
            table = Table(box=None, pad_edge=False, expand=False)
            for name in names:
                right = name in ("id", "sent/s", "lag", "position")
                table.add_column(name, no_wrap=True, justify="right" if right else "left")
            for row in rows:
                table.add_row(*(Text(sanitise(cell)) for cell in row))
            live.update(table, refresh=True)

        yield show
