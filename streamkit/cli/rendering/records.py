"""Log lines and updates for eyes: aligned, coloured by level and by name."""

from __future__ import annotations

import re

from rich.text import Text

from streamkit.cli.output.records import clock_text
from streamkit.cli.output.streams import Output
from streamkit.cli.rendering.console import LEVEL_STYLES, console_for, name_style, plain
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.sanitise import sanitise_lines

__all__ = ["RecordPrinter", "log_text", "update_text"]


def log_text(
    entry: LogEntry,
    *,
    time: str = "local",
    prefix: bool = True,
    fields: bool = True,
    pattern: re.Pattern[str] | None = None,
) -> Text:
    """One log record; further lines of its message are indented below the first."""
    head = Text(end="")
    if stamp := clock_text(entry.timestamp, time):
        head.append(f"{stamp} ", "dim")
    if prefix:
        head.append_text(plain(entry.service, name_style(entry.service))).append(" ")
    head.append_text(plain(f"{entry.level:<5}"[:5], LEVEL_STYLES.get(entry.level, "")))
    first, *more = sanitise_lines(entry.message)
    message = Text("\n".join([first, *(f"    {line}" for line in more)]), end="")
    if pattern is not None:
        for match in pattern.finditer(message.plain):
            message.stylize("reverse", *match.span())
    head.append(" ").append_text(message)
    if fields:
        for key in sorted(entry.fields):
            head.append(" ").append_text(plain(f"{key}={entry.fields[key]}", "dim"))
    if entry.skipped:
        head.append(f" ({entry.skipped} passed over)", "yellow")
    return head


def update_text(update: Update, *, time: str = "local") -> Text:
    """One update: when, which topic, what."""
    line = Text(end="")
    if stamp := clock_text(update.timestamp, time):
        line.append(f"{stamp} ", "dim")
    line.append_text(plain(update.topic, name_style(update.topic)))
    line.append(" ").append_text(Text("\n    ".join(sanitise_lines(update.message)), end=""))
    for key in sorted(update.metadata):
        line.append(" ").append_text(plain(f"{key}={update.metadata[key]}", "dim"))
    if update.skipped:
        line.append(f" ({update.skipped} passed over)", "yellow")
    return line


class RecordPrinter:
    """Writes texts one below the other; never wraps them, never animates.

    Without colour rich has nothing to add, and the plain text goes straight to the output.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._console = console_for(output.stream, output.terminal)

    def print(self, text: Text) -> None:
        if self._output.terminal.colour:
            self._console.print(text, end="\n", soft_wrap=True)
        else:
            self._output.line(text.plain)
