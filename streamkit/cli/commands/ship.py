"""ship: standard input or a file into the logs of a service."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamkit.cli import exits, options
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import header, level
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.cli.input.following import Follower
    from streamkit.cli.input.ledger import Ledger
    from streamkit.client import LogWriter

__all__ = ["register"]

STARTS = ("start", "end", "here")


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
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="|".join(STARTS),
            help="With -f: the start of the file, its end, or where the last run stopped, which is "
            "the start if there was none.",
        ),
    ] = "here",
    new: Annotated[bool, typer.Option("--new", hidden=True, help="As --from end.")] = False,
    minimum: Annotated[
        str,
        typer.Option("-l", "--level", metavar="LEVEL|auto", help="Of the lines; auto reads them."),
    ] = "auto",
    fields: options.Fields = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No counts at the end.")] = False,
) -> int:
    """Ship lines into the logs of SERVICE and wait until the server has stored them.

    While the server is away nothing is lost: reading stops and goes on when it is back. With -f
    the place in the file is kept, also for the next run, so that no line is lost or shipped twice.
    """
    if new:
        start = "end"
    if start not in STARTS:
        raise UsageError(f"--from: {start!r} is not one of {', '.join(STARTS)}")
    if file == "-" and follow:
        raise UsageError("--follow needs a FILE")
    if start != "here" and not follow:
        raise UsageError("--from needs --follow")
    lines = _Lines(
        _levels(minimum), dict(value_of("--field", header, text) for text in fields or [])
    )
    if file == "-" and sys.stdin.isatty():
        session.note("reading lines from the terminal; Ctrl-D ends")
    if follow and not _is_pipe(file):
        return await _follow(session, service, Path(file), start, lines, quiet)
    if file != "-" and not os.access(file, os.R_OK):
        raise UsageError(f"{file}: no such file, or not readable")
    return await _copy(session, service, file, lines, quiet)


class _Lines:
    """Lines as records, all in the same way."""

    def __init__(self, level_of: Callable[[str], str], fields: dict[str, str]) -> None:
        self._level_of = level_of
        self.fields = fields

    def records(self, lines: list[str]) -> list[tuple[str, str, dict[str, str]]]:
        return [(line, self._level_of(line), self.fields) for line in lines]


async def _copy(session: Session, service: str, file: str, lines: _Lines, quiet: bool) -> int:
    """Ship a source that ends."""
    from streamkit.cli.input.intake import file_lines, stdin_lines

    started = time.monotonic()
    count = 0
    async with (
        session.client(check=False) as client,
        client.log_writer(service, drain_timeout=None) as writer,
    ):
        source = stdin_lines() if file == "-" else file_lines(Path(file))
        try:
            async with aclosing(source) as batches:
                async for batch in batches:
                    for record in lines.records(batch):
                        await writer.send(*record)
                        count += 1
            await writer.flush()
        finally:
            if not quiet:
                _tell(session, writer, service, count, time.monotonic() - started)
        return exits.FAILED if writer.dropped else exits.OK


async def _follow(
    session: Session, service: str, path: Path, start: str, lines: _Lines, quiet: bool
) -> int:
    """Ship a file for ever, each line once, however often the two ends are started again."""
    from streamkit.cli.input.following import Follower, Note
    from streamkit.cli.input.intake import followed
    from streamkit.cli.input.ledger import InUseError, Ledger, ledger_path

    started = time.monotonic()
    kept = ledger_path(session.server, service, path)
    try:
        ledger = Ledger(kept, fresh=start != "here")
    except InUseError:
        raise UsageError(f"{path} is being shipped to {service} by another process") from None
    count = 0
    try:
        follower = await asyncio.to_thread(
            Follower,
            path,
            places=ledger.places,
            trails=ledger.trails,
            from_end=start == "end",
            tell=session.note,
        )
        async with session.client(check=False) as client:
            writer = client.log_writer(service, producer_id=ledger.producer)
            settling = _Settling(writer, ledger)

            async def send(number: int, texts: list[str]) -> None:
                nonlocal count
                await writer.send_request(lines.records(texts), number)
                settling.sent(number, len(texts))
                count += len(texts)

            try:
                async with aclosing(followed(follower)) as batches:
                    await _repeat(session, ledger, follower, send)
                    async for batch in batches:
                        if isinstance(batch, Note):
                            ledger.note(batch)
                        else:
                            await send(ledger.seal(batch), batch.lines)
            finally:
                settling.look()
                if not quiet:
                    _tell(session, writer, service, count, time.monotonic() - started)
    finally:
        ledger.close()
    return exits.OK


class _Settling:
    """Which requests have an answer, by the number of lines that have."""

    def __init__(self, writer: LogWriter, ledger: Ledger) -> None:
        self._outbox = writer.pump.outbox
        self._ledger = ledger
        self._lines = 0
        self._waiting: deque[tuple[int, int]] = deque()
        writer.pump.on_reply = lambda _: self.look()

    def sent(self, number: int, lines: int) -> None:
        self._lines += lines
        self._waiting.append((self._lines, number))

    def look(self) -> None:
        done = 0
        while self._waiting and self._waiting[0][0] <= self._outbox.settled:
            _, done = self._waiting.popleft()
        if done:
            self._ledger.settle(done)


async def _repeat(
    session: Session,
    ledger: Ledger,
    follower: Follower,
    send: Callable[[int, list[str]], Awaitable[None]],
) -> None:
    """Send again what was on its way when an earlier run ended."""
    gone = 0
    for request in list(ledger.outstanding.values()):
        found = await asyncio.to_thread(follower.reread, request.first, request.place)
        if found is None or len(found) != request.count:
            gone += request.count
            del ledger.outstanding[request.number]
        else:
            await send(request.number, found)
    if gone:
        session.note(
            f"{gone} lines were on their way when the last run ended, and their file is gone: they "
            "may be lost"
        )


def _is_pipe(file: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(file).st_mode)
    except OSError:
        return False


def _levels(text: str) -> Callable[[str], str]:
    if text == "auto":
        from streamkit.cli.input.levels import detect_level

        return detect_level
    fixed = value_of("--level", level, text) or "info"
    return lambda line: fixed


def _tell(session: Session, writer: LogWriter, service: str, count: int, seconds: float) -> None:
    stored = writer.acknowledged
    missing = f", {count - stored} not acknowledged" if stored < count else ""
    rate = f" ({count / seconds:,.0f} a second)" if seconds > 1 and count > 1000 else ""
    lines = "line" if stored == 1 else "lines"
    session.note(f"shipped {stored} {lines} to {service}{missing}{rate}")
