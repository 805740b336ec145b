"""Jobs on a terminal: bars that live, lines where nobody watches, a table of many."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from streamkit.cli.output.records import clock_text, job_line, job_object, seconds_text
from streamkit.cli.output.streams import Output
from streamkit.cli.rendering.console import STATUS_STYLES, console_for, plain, stop_politely
from streamkit.cli.rendering.records import RecordPrinter, log_text
from streamkit.generated.streamservice import JobProgress, LogEntry

__all__ = [
    "BarsView",
    "JobView",
    "JobsTable",
    "JsonView",
    "LinesView",
    "TableView",
    "job_bars",
    "show_task",
]

ENDED = ("completed", "failed", "cancelled", "lost")
LINE_EVERY_PERCENT = 10
LINE_EVERY_SECONDS = 30.0


class JobView:
    """How watched jobs are shown: `update` for every state, `log` for every line of theirs."""

    def update(self, job: JobProgress) -> None:
        raise NotImplementedError

    def log(self, entry: LogEntry) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Leave the terminal as it was found, with the last state on it."""


class JsonView(JobView):
    """Every state and every line as an object; `kind` says which it is."""

    def __init__(
        self, put: Callable[[dict[str, Any]], None], end: Callable[[], None] = lambda: None
    ) -> None:
        self._put = put
        self._end: Callable[[], None] | None = end

    def update(self, job: JobProgress) -> None:
        self._put({"kind": "job", **job_object(job)})

    def log(self, entry: LogEntry) -> None:
        from streamkit.cli.output.records import log_object

        self._put({"kind": "log", **log_object(entry)})

    def close(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None


class LinesView(JobView):
    """A line at the start, at every tenth of the way or half minute, at a change and at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._printer = RecordPrinter(output)
        self._told: dict[str, tuple[str, int, float]] = {}

    def update(self, job: JobProgress) -> None:
        now = time.monotonic()
        status = f"{job.status}{job.stalled}{job.cancel_requested}"
        before = self._told.get(job.job_id)
        if before is not None:
            near = job.percentage < before[1] + LINE_EVERY_PERCENT
            if before[0] == status and near and now < before[2] + LINE_EVERY_SECONDS:
                return
        self._told[job.job_id] = (status, job.percentage, now)
        style = STATUS_STYLES.get("stalled" if job.stalled else job.status, "")
        self._printer.print(plain(job_line(job), style))

    def log(self, entry: LogEntry) -> None:
        self._printer.print(log_text(entry, prefix=False, fields=False))


class _Amount(ProgressColumn):
    """What is done: a percentage, or a count and its rate where the total is not known."""

    def render(self, task: Task) -> Text:
        job: JobProgress = task.fields["job"]
        if task.total is None:
            if not job.completed:
                return Text("")
            rate = f" {task.speed:.0f}/s" if task.speed else ""
            return Text(f"{job.completed}{rate}")
        count = f" {job.completed}/{job.total}" if job.total else ""
        return Text(f"{job.percentage:>3}%{count}")


class _Status(ProgressColumn):
    """The status in its colour."""

    def render(self, task: Task) -> Text:
        job: JobProgress = task.fields["job"]
        shown = "stalled" if job.stalled else job.status
        if job.cancel_requested and job.status == "running":
            shown = "cancelling"
        return plain(shown, STATUS_STYLES.get(shown, ""))


class _Step(ProgressColumn):
    """The step, or why the job failed; as wide as the terminal allows."""

    def render(self, task: Task) -> Text:
        job: JobProgress = task.fields["job"]
        text = plain(job.error or job.current_step, "red" if job.error else "dim")
        text.no_wrap = True
        text.overflow = "ellipsis"
        return text


class _Spinner(SpinnerColumn):
    """Turns while the job runs."""

    def render(self, task: Task) -> RenderableType:
        return Text(" ") if task.fields["job"].status in ENDED else super().render(task)


class _Left(TimeRemainingColumn):
    """Nothing is left of a job that has ended, however far it came."""

    def render(self, task: Task) -> Text:
        return Text("") if task.fields["job"].status in ENDED else super().render(task)


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return plain(task.fields["job"].job_id, "bold")


def job_bars(*, narrow: bool = False, **options: object) -> Progress:
    """Return the progress display of jobs; `show_task` puts a state into it.

    `narrow` is for a pane of half a terminal: a short bar and no times.
    """
    times = (
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        _Left(compact=True, table_column=Column(no_wrap=True)),
    )
    return Progress(
        _Spinner(),
        _Name(table_column=Column(no_wrap=True)),
        _Status(table_column=Column(no_wrap=True)),
        BarColumn(bar_width=8 if narrow else 24),
        _Amount(table_column=Column(no_wrap=True)),
        *(() if narrow else times),
        _Step(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        **options,  # type: ignore[arg-type]  # Progress checks them
    )


def show_task(bars: Progress, tasks: dict[str, TaskID], job: JobProgress) -> None:
    """Show the state of one job; a job that is new gets a bar of its own."""
    total, completed = _measure(job)
    if job.job_id not in tasks:
        tasks[job.job_id] = bars.add_task("", total=total, job=job)
        created = job.created_at.timestamp()
        if created > 0:
            # A bar that is attached late shows the age of the job, not of the watching.
            task = bars.tasks[bars.task_ids.index(tasks[job.job_id])]
            until = job.updated_at.timestamp() if job.status in ENDED else time.time()
            task.start_time = bars.get_time() - max(0.0, until - created)
    bars.update(tasks[job.job_id], total=total, completed=completed, job=job)
    if job.status in ENDED:
        bars.stop_task(tasks[job.job_id])


def _measure(job: JobProgress) -> tuple[float | None, float]:
    if job.status == "completed":
        return 100.0, 100.0
    if job.total:
        return float(job.total), float(job.completed)
    if job.percentage:
        return 100.0, float(job.percentage)
    return None, float(job.completed)


class BarsView(JobView):
    """Bars at the bottom that stay, log lines scrolling above them."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._console = console_for(output.stream, output.terminal)
        self._bars = job_bars(console=self._console, redirect_stdout=False, redirect_stderr=False)
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()
        self._resume = stop_politely(self._console)
        if output.notes.is_tty:
            output.note_sink = lambda text: self._console.print(plain(text, "dim"), soft_wrap=True)

    def update(self, job: JobProgress) -> None:
        show_task(self._bars, self._tasks, job)

    def log(self, entry: LogEntry) -> None:
        self._console.print(log_text(entry, prefix=False, fields=False), soft_wrap=True)

    def close(self) -> None:
        self._output.note_sink = None
        self._resume()
        self._bars.stop()


class TableView:
    """The table of all jobs, drawn again and again in its place."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._console = console_for(output.stream, output.terminal)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()
        self._resume = stop_politely(self._console)
        output.note_sink = lambda text: self._console.print(plain(text, "dim"), soft_wrap=True)

    def show(self, jobs: Sequence[JobProgress]) -> None:
        self._live.update(JobsTable(jobs), refresh=True)

    def close(self) -> None:
        self._output.note_sink = None
        self._resume()
        self._live.stop()


_LESS = (("RAN", 72), ("STEP", 64), ("CHANGED", 50), ("PROGRESS", 32))
"""Columns that a narrower terminal goes without, so that what is left can be read."""


class JobsTable:
    """The jobs, one a line, in the order given, as wide as where they are printed."""

    def __init__(self, jobs: Sequence[JobProgress], now: datetime | None = None) -> None:
        self._jobs = jobs
        self._now = now

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        without = {heading for heading, least in _LESS if options.max_width < least}
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("JOB", "STATUS", "PROGRESS", "CHANGED", "RAN", "STEP"):
            if heading not in without:
                # The others keep their width; these two share what is left.
                fixed = heading not in ("JOB", "STEP")
                table.add_column(heading, no_wrap=fixed, overflow="ellipsis")
        current = datetime.now(UTC) if self._now is None else self._now
        for job in self._jobs:
            cells = _cells(job, current)
            table.add_row(*(cell for heading, cell in cells.items() if heading not in without))
        yield table


def _cells(job: JobProgress, now: datetime) -> dict[str, Text]:
    status = "stalled" if job.stalled else job.status
    created = job.created_at.timestamp()
    until = job.updated_at if job.status in ENDED else now
    ran = seconds_text((until - job.created_at).total_seconds()) if created > 0 else ""
    done = f"{job.percentage}%" + (f" {job.completed}/{job.total}" if job.total else "")
    return {
        "JOB": _one_line(job.job_id, "bold"),
        "STATUS": plain(status, STATUS_STYLES.get(status, "")),
        "PROGRESS": plain(done),
        "CHANGED": plain(clock_text(job.updated_at, "relative", now)),
        "RAN": plain(ran),
        "STEP": _one_line(job.error or job.current_step, "red" if job.error else "dim"),
    }


def _one_line(text: str, style: str) -> Text:
    line = plain(text, style)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
