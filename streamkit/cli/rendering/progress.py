"""The progress of a query on a terminal: rows, bytes, rate and, once known, the time left."""

from __future__ import annotations

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from streamkit.cli.output.progress import Progress
from streamkit.cli.output.records import size_text
from streamkit.cli.output.sink import Sink
from streamkit.cli.output.streams import Output
from streamkit.cli.rendering.console import console_for, stop_politely

__all__ = ["LiveProgress"]


class LiveProgress(Progress):
    """One line on standard error that goes away when the result is complete."""

    def __init__(self, output: Output, sink: Sink) -> None:
        super().__init__(output, sink)
        self._bars = Bars(
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f} rows", markup=False),
            TextColumn("{task.fields[size]}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console_for(output.note_stream, output.notes),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bars.add_task("", total=None, size="", rate="")
        self._bars.start()
        self._resume = stop_politely(self._bars.console)

    def update(self, total: int) -> None:
        task = self._bars.tasks[0]
        speed = task.speed
        self._bars.update(
            self._task,
            total=total or None,
            completed=self._sink.count,
            size=size_text(self._sink.bytes),
            rate=f"{speed:,.0f} rows/s" if speed else "",
        )

    def close(self) -> None:
        self._resume()
        self._bars.stop()
