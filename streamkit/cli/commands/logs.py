"""logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, level, moment
from streamkit.cli.options import command
from streamkit.cli.output.records import TIME_STYLES
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.client.reading.start import StartAt
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
    follow: Annotated[
        bool, typer.Option("-f/-F", "--follow/--no-follow", help="Go on with new lines.")
    ] = False,
    lines: Annotated[
        str, typer.Option("-n", "--lines", metavar="N|all", help="History; 10 with -f, else 100.")
    ] = "",
    minimum: Annotated[
        str, typer.Option("-l", "--level", metavar="LEVEL", help="This level and above.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Since 10m ago, today, ISO 8601.")
    ] = "",
    grep: Annotated[
        str, typer.Option("-g", "--grep", metavar="REGEX", help="Only lines that match.")
    ] = "",
    exclude: Annotated[
        str, typer.Option("-v", "--exclude", metavar="REGEX", help="Only lines that do not match.")
    ] = "",
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="pretty|raw|jsonl", help="Output format.")
    ] = "",
    time: Annotated[
        str, typer.Option("--time", metavar="|".join(TIME_STYLES), help="Times in pretty.")
    ] = "local",
    prefix: Annotated[
        bool | None, typer.Option("--prefix/--no-prefix", help="The service before each line.")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="When slow, only the newest of each service.")
    ] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Stop then; exit code 124.")
    ] = "",
) -> int:
    """Show the log lines of services."""
    from streamkit import client as api

    wanted = value_of("--level", level, minimum)
    pattern, unwanted = _regex("--grep", grep), _regex("--exclude", exclude)
    names = services or []
    with_prefix = prefix if prefix is not None else len(names) != 1 or "*" in names[0]
    show = _printer(session, output, time, with_prefix, pattern)
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    if lines and since:
        raise UsageError("give one of --lines and --since")
    history = LINES_FOLLOWING if follow else LINES
    start: StartAt | None = None
    if since:
        history, start = 0, api.since(value_of("--since", moment, since))
    elif lines == "all":
        history, start = 0, "all"
    elif lines:
        history = value_of("--lines", _count, lines)
        if history == 0 and not follow:
            return exits.OK
    first, *more = names or [""]
    async with session.client() as client:
        stream = client.logs(
            first,
            *more,
            level=wanted,
            lines=history,
            follow=follow,
            start=start,
            latest=latest,
            on_loss=session.on_loss,
        )
        try:
            async with asyncio.timeout(seconds), stream as entries:
                session.watch_reader()
                async for entry in entries:
                    if pattern is not None and not pattern.search(entry.message):
                        continue
                    if unwanted is not None and unwanted.search(entry.message):
                        continue
                    show(entry)
        except TimeoutError:
            return exits.TIMEOUT
    return exits.OK


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
) -> Callable[[LogEntry], Any]:
    if time not in TIME_STYLES:
        raise UsageError(f"--time: {time!r} is not one of {', '.join(TIME_STYLES)}")
    if output == "raw":
        return lambda entry: session.output.line(entry.message)
    if output == "jsonl":
        from streamkit.cli.output.records import log_object
        from streamkit.sanitise import json_text

        return lambda entry: session.output.line(json_text(log_object(entry)))
    if output in ("", "pretty"):
        from streamkit.cli.rendering.records import RecordPrinter, log_text

        printer = RecordPrinter(session.output)
        return lambda entry: printer.print(
            log_text(entry, time=time, prefix=prefix, pattern=pattern)
        )
    raise UsageError(f"-o: {output!r} is not pretty, raw or jsonl")
