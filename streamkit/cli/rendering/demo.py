"""What `streamkit demo` shows: four live panes on a terminal, lines where nobody watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress import TaskID
from rich.text import Text

from streamkit.cli.output.records import job_line
from streamkit.cli.output.streams import Output
from streamkit.cli.rendering.console import console_for, plain, stop_politely
from streamkit.cli.rendering.jobs import job_bars, show_task
from streamkit.cli.rendering.records import RecordPrinter, log_text, update_text
from streamkit.cli.rendering.tables import TableWriter
from streamkit.formats import ColumnLike, TextOptions
from streamkit.generated.streamservice import JobProgress, LogEntry, Update

__all__ = ["DemoView", "LinesDemo", "PanesDemo"]

PANES = ("logs", "updates", "jobs", "query")
WIDE = 160
"""Columns from which the panes stand beside each other."""
FRAMES = 10
"""A second."""


class DemoView:
    """Takes what the four streams deliver. `title` says which command shows a pane alone."""

    def title(self, pane: str, command: str) -> None:
        raise NotImplementedError

    def log(self, entry: LogEntry) -> None:
        raise NotImplementedError

    def update(self, update: Update) -> None:
        raise NotImplementedError

    def job(self, job: JobProgress) -> None:
        raise NotImplementedError

    def table(self, columns: Sequence[ColumnLike], rows: Sequence[dict[str, str]]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Leave the terminal as it was found."""


class LinesDemo(DemoView):
    """Everything as lines, the pane's name first."""

    def __init__(self, output: Output) -> None:
        self._printer = RecordPrinter(output)
        self._told: dict[str, tuple[str, int]] = {}
        self._shown = ""

    def title(self, pane: str, command: str) -> None:
        self._print(pane, plain(command, "bold"))

    def log(self, entry: LogEntry) -> None:
        self._print("logs", log_text(entry))

    def update(self, update: Update) -> None:
        self._print("updates", update_text(update))

    def job(self, job: JobProgress) -> None:
        state = (job.status, job.percentage // 10)
        if self._told.get(job.job_id) != state:
            self._told[job.job_id] = state
            self._print("jobs", plain(job_line(job)))

    def table(self, columns: Sequence[ColumnLike], rows: Sequence[dict[str, str]]) -> None:
        text = TableWriter(columns, TextOptions()).rows(rows)
        if text != self._shown:
            self._shown = text
            for line in text.splitlines():
                self._print("query", plain(line))

    def _print(self, pane: str, text: Text) -> None:
        self._printer.print(Text(f"{pane:<7} | ", style="dim", end="").append_text(text))


class _Lines:
    """The last lines that fit the pane, or the first, each cut at its edge."""

    def __init__(self, *, from_top: bool = False) -> None:
        self._from_top = from_top
        self.lines: deque[Text] = deque(maxlen=200)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or 10
        lines = list(self.lines)
        for line in lines[:height] if self._from_top else lines[-height:]:
            shown = line.copy()
            shown.truncate(options.max_width, overflow="ellipsis")
            yield shown
            yield Text("\n", end="")


class PanesDemo(DemoView):
    """Four panes, beside each other where their commands fit, else one below the other."""

    def __init__(self, output: Output, footer: str) -> None:
        self._output = output
        self._console = console_for(output.stream, output.terminal)
        self._tails = {"logs": _Lines(), "updates": _Lines(), "query": _Lines(from_top=True)}
        self._bars = job_bars(narrow=True, console=self._console, auto_refresh=False)
        self._tasks: dict[str, TaskID] = {}
        self._titles = dict.fromkeys(PANES, "")
        self._footer = Text(footer, style="dim", no_wrap=True, overflow="ellipsis")
        self._live = Live(
            self,
            console=self._console,
            screen=True,
            refresh_per_second=FRAMES,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._resume = stop_politely(self._console)
        output.note_sink = lambda text: None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        panels = {
            name: Panel(
                self._tails.get(name, self._bars),
                title=Text(self._titles[name], style="bold"),
                title_align="left",
                border_style="cyan",
            )
            for name in PANES
        }
        root = Layout()
        whole, footer = Layout(), Layout(self._footer, size=1)
        root.split_column(whole, footer)
        widest = max(map(len, self._titles.values()))
        if options.max_width >= max(WIDE, 2 * (widest + 6)):
            left, right = Layout(), Layout()
            left.split_column(Layout(panels["logs"]), Layout(panels["updates"]))
            right.split_column(Layout(panels["jobs"]), Layout(panels["query"]))
            whole.split_row(left, right)
        else:
            whole.split_column(*(Layout(panels[name]) for name in PANES))
        yield root

    def title(self, pane: str, command: str) -> None:
        self._titles[pane] = command

    def log(self, entry: LogEntry) -> None:
        first, *more = log_text(entry, time="clock", fields=False).split("\n")
        self._tails["logs"].lines.extend((first, *more))

    def update(self, update: Update) -> None:
        self._tails["updates"].lines.append(update_text(update, time="clock"))

    def job(self, job: JobProgress) -> None:
        show_task(self._bars, self._tasks, job)
        # The newest job of each kind stays; its predecessor makes room.
        kind = job.job_id.rpartition("-")[0]
        for other in [name for name in self._tasks if name.rpartition("-")[0] == kind]:
            if other != job.job_id:
                self._bars.remove_task(self._tasks.pop(other))

    def table(self, columns: Sequence[ColumnLike], rows: Sequence[dict[str, str]]) -> None:
        text = TableWriter(columns, TextOptions()).rows(rows)
        lines = self._tails["query"].lines
        lines.clear()
        lines.extend(plain(line) for line in text.splitlines())

    def close(self) -> None:
        self._resume()
        self._live.stop()
        self._output.note_sink = None
