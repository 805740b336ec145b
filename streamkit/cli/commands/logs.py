"""logs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits, options
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, level
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.output.records import log_object
from streamkit.cli.rendering.printing import Printer, Span, start_of
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.cli.rendering.printing import Text
    from streamkit.generated.streamservice import LogEntry

__all__ = ["register"]

LINES_FOLLOWING = 10
LINES = 100


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "logs")(_logs)


async def _logs(
    session: Session,
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="SERVICE...", help="Names or patterns such as api-*; none is all."),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
    no_follow: Annotated[
        bool, typer.Option("-F", "--no-follow", hidden=True, help="The opposite of -f.")
    ] = False,
    last: Annotated[
        str, typer.Option("-n", "--last", metavar="N|all", help="History; 10 with -f, else 100.")
    ] = "",
    old_lines: Annotated[str, typer.Option("--lines", hidden=True, help="As --last.")] = "",
    everything: options.All = False,
    since: options.Since = "",
    from_seq: options.FromSeq = 0,
    until: options.Until = "",
    count: options.Count = 0,
    minimum: Annotated[
        str, typer.Option("-l", "--level", metavar="LEVEL", help="This level and above.")
    ] = "",
    grep: Annotated[
        str, typer.Option("-g", "--grep", metavar="REGEX", help="Only lines that match.")
    ] = "",
    exclude: Annotated[
        str, typer.Option("-v", "--exclude", metavar="REGEX", help="Only lines that do not match.")
    ] = "",
    output: options.RecordOutput = "",
    time: options.TimeStyle = "local",
    prefix: Annotated[
        bool | None, typer.Option("--prefix/--no-prefix", help="The service before each line.")
    ] = None,
    latest: options.Latest = False,
    timeout: options.Timeout = "",
) -> int:
    """Show the log lines of services."""
    wanted = value_of("--level", level, minimum)
    chosen = _Filter(_regex("--grep", grep), _regex("--exclude", exclude))
    names = services or []
    with_prefix = prefix if prefix is not None else len(names) != 1 or "*" in names[0]
    printer = _printer(session, output, time, with_prefix, chosen.pattern)
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    span = Span(count, until)
    follow = follow and not no_follow and not span.over
    last = last or old_lines
    everything = everything or last == "all"
    history = None if last in ("", "all") else value_of("--last", _count, last)
    if history is not None and (everything or since or from_seq):
        raise UsageError("give one of --all, --last, --since and --from-seq")
    if history == 0 and not follow:
        return exits.OK
    if history is None:
        history = LINES_FOLLOWING if follow else LINES
    first, *more = names or [""]
    try:
        async with session.client() as client:
            start = await start_of(
                client, everything=everything, last=None, since=since, from_seq=from_seq
            )
            stream = client.logs(
                first,
                *more,
                level=wanted,
                lines=0 if start is not None else history,
                follow=follow,
                start=start,
                latest=latest,
                on_loss=session.on_loss,
            )
            async with asyncio.timeout(seconds), stream as entries:
                session.watch_reader()
                await _show(entries, printer, chosen, span)
    except TimeoutError:
        return exits.TIMEOUT
    finally:
        printer.close()
    return exits.OK


class _Filter:
    """Which lines are shown, of those that come."""

    def __init__(self, pattern: re.Pattern[str] | None, unwanted: re.Pattern[str] | None) -> None:
        self.pattern = pattern
        self._unwanted = unwanted

    def takes(self, message: str) -> bool:
        if self.pattern is not None and not self.pattern.search(message):
            return False
        return self._unwanted is None or not self._unwanted.search(message)


async def _show(entries: Any, printer: Printer[LogEntry], chosen: _Filter, span: Span) -> None:
    """Show until the stream ends or the span is full or over."""
    try:
        async with asyncio.timeout(span.seconds) as limit:
            async for entry in entries:
                # Producers' clocks differ: a line of a later time does not end the others.
                if span.holds(entry.timestamp) and chosen.takes(entry.message):
                    printer.show(entry)
                    span.count()
                    if span.full:
                        return
    except TimeoutError:
        if not limit.expired():
            raise


def _count(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"{text!r} is neither a count nor all")
    return int(text)


def _regex(name: str, text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UsageError(f"{name}: {text!r} is not a regular expression: {error}") from None


def _printer(
    session: Session, output: str, time: str, prefix: bool, pattern: re.Pattern[str] | None
) -> Printer[LogEntry]:
    def text(entry: LogEntry) -> Text:
        from streamkit.cli.rendering.records import log_text

        return log_text(entry, time=time, prefix=prefix, pattern=pattern)

    return Printer(
        session, output, time, raw=lambda entry: entry.message, shown=log_object, text=text
    )
