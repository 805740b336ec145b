"""ship: standard input or a file into the logs of a service."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.input.parsing import header, level
from streamkit.cli.session import Session, UsageError, command, value_of

if TYPE_CHECKING:
    from streamkit.client import LogWriter

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "ship")(_ship)


async def _ship(
    session: Session,
    service: Annotated[str, typer.Argument(metavar="SERVICE")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Else standard input.", show_default=False)
    ] = "-",
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is added, across rotations.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="With -f: skip what is in the file already.")
    ] = False,
    minimum: Annotated[
        str,
        typer.Option("-l", "--level", metavar="LEVEL|auto", help="Of the lines; auto reads them."),
    ] = "auto",
    fields: Annotated[
        list[str] | None, typer.Option("-F", "--field", metavar="KEY=VALUE", help="For each line.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No counts at the end.")] = False,
) -> int:
    """Ship lines into the logs of SERVICE and wait until the server has stored them.

    While the server is away nothing is lost: reading stops and goes on when it is back.
    """
    from streamkit.cli.input.intake import file_lines, stdin_lines

    if file == "-" and (follow or new):
        raise UsageError("--follow needs a FILE")
    if new and not follow:
        raise UsageError("--new needs --follow")
    level_of = _levels(minimum)
    extra = dict(value_of("--field", header, text) for text in fields or [])
    if file != "-" and not os.access(file, os.R_OK):  # a pipe with a name is fine
        raise UsageError(f"{file}: no such file, or not readable")
    if file == "-" and sys.stdin.isatty():
        session.note("reading lines from the terminal; Ctrl-D ends")
    started = time.monotonic()
    count = 0
    async with session.client() as client, client.log_writer(service) as writer:
        source = (
            stdin_lines() if file == "-" else file_lines(Path(file), following=follow, from_end=new)
        )
        try:
            async for batch in source:
                for line in batch:
                    await writer.send(line, level_of(line), extra)
                    count += 1
            await writer.flush()
        finally:
            await source.aclose()
            if not quiet:
                await asyncio.shield(
                    _tell(session, writer, service, count, time.monotonic() - started)
                )
        return exits.FAILED if writer.dropped else exits.OK


def _levels(text: str) -> Callable[[str], str]:
    if text == "auto":
        from streamkit.cli.input.lines import detect_level

        return detect_level
    fixed = value_of("--level", level, text) or "info"
    return lambda line: fixed


async def _tell(
    session: Session, writer: LogWriter, service: str, count: int, seconds: float
) -> None:
    stored = writer.acknowledged
    missing = f", {count - stored} not acknowledged" if stored < count else ""
    rate = f" ({count / seconds:,.0f} a second)" if seconds > 1 else ""
    lines = "line" if stored == 1 else "lines"
    session.note(f"shipped {stored} {lines} to {service}{missing}{rate}")
