"""export, import: a store as lines of JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.client import AsyncClient
    from streamkit.generated.streamservice import (
        JobProgress,
        LogEntry,
        Update,
        WriteReply,
        WriteRequest,
    )

__all__ = ["register"]

_STREAMS = ("updates", "logs", "jobs")
_QUIET = 5.0
"""Seconds without a record after which those up to the end are taken to be gone."""
_AT_ONCE = 1_000
_ALL_JOBS = 1_000_000_000


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "export")(_export)
    command(app, "import")(_import)


async def _export(
    session: Session,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="updates|logs|jobs", help="Of this; more than once."),
    ] = None,
) -> int:
    """Write what is stored now to standard output, a line of JSON for each record.

    Updates and logs with their times, and each job as it is. Reading it by `import`, also twice,
    stores each record once. A whole store as it is, histories of jobs included, is what `backup`
    saves.
    """
    from streamkit.cli.output.transfer import line_of
    from streamkit.sanitise import json_text

    wanted = only or list(_STREAMS)
    for name in wanted:
        if name not in _STREAMS:
            raise UsageError(f"--only: {name!r} is not one of {', '.join(_STREAMS)}")
    session.watch_reader()
    count = 0
    async with session.client() as client:
        status = await client.status()
        newest = {stream.name: stream.newest for stream in status.streams}
        for name in wanted:
            if not newest.get(name):
                continue
            async with aclosing(_records(client, name, newest[name], session)) as batches:
                async for batch in batches:
                    lines = (json_text(line_of(each, status.epoch)) for each in batch)
                    session.output.text("".join(f"{line}\n" for line in lines))
                    count += len(batch)
        session.output.flush()
    session.note(f"exported {count:,} records")
    return exits.FAILED if session.loss_told else exits.OK


async def _records(
    client: AsyncClient, name: str, newest: int, session: Session
) -> AsyncGenerator[list[Any], None]:
    """The records of a stream up to a sequence."""
    if name == "jobs":
        jobs: list[JobProgress] = await client.jobs(limit=_ALL_JOBS)
        yield jobs[::-1]
        return
    stream: Any
    if name == "updates":
        stream = client.subscribe(">", start="all", on_loss=session.on_loss)
    else:
        stream = client.logs(start="all", follow=True, on_loss=session.on_loss)
    async with stream as records:
        while records.position is None or records.position.sequence < newest:
            try:
                async with asyncio.timeout(_QUIET):
                    batch: list[Update | LogEntry] = await records.receive()
            except TimeoutError:
                return  # the last ones were removed, or are not for this caller
            if not batch:
                return
            yield [record for record in batch if record.sequence <= newest]


async def _import(
    session: Session,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="As `export` wrote it; - is standard input.")
    ],
) -> int:
    """Store what `export` has written: each record once, however often it is read (in a day).

    Records keep their times and their order, and get sequences of their own.
    """
    from streamkit.cli.output.transfer import request_of

    numbers = {"stored": 0, "known": 0}
    place = 0
    async with session.client() as client, aclosing(_lines(file)) as batches:
        status = await client.status()
        newest = {stream.name: stream.newest for stream in status.streams}
        async for batch in batches:
            requests: list[WriteRequest] = []
            fault = ""
            for line in batch:
                place += 1
                if not line.strip():
                    continue
                try:
                    requests.append(request_of(line))
                except ValueError as error:
                    fault = f"{file}: line {place}: {error}"
                    break
            for start in range(0, len(requests), _AT_ONCE):
                for reply in await client.replay(requests[start : start + _AT_ONCE]):
                    numbers["known" if _is_known(reply, newest) else "stored"] += 1
            if fault:
                _tell(session, numbers)
                raise UsageError(fault)
    _tell(session, numbers)
    return exits.OK


def _tell(session: Session, numbers: dict[str, int]) -> None:
    session.note(f"stored {numbers['stored']:,} records; {numbers['known']:,} were there already")


def _is_known(reply: WriteReply, newest: dict[str, int]) -> bool:
    """Whether a request was answered out of what had been stored before this began."""
    if reply.job_sequences:
        return reply.job_sequences[0] <= newest["jobs"]
    if reply.logs.count:
        return reply.logs.first <= newest["logs"]
    return reply.updates.first <= newest["updates"]


async def _lines(file: str) -> AsyncGenerator[list[str], None]:
    from streamkit.cli.input.intake import stdin_lines

    if file == "-":
        async with aclosing(stdin_lines()) as batches:
            async for batch in batches:
                yield batch
        return
    with _opened(file) as opened:
        while batch := await asyncio.to_thread(opened.readlines, 256 * 1024):
            yield batch


def _opened(file: str) -> TextIO:
    path = Path(file).expanduser()
    try:
        return path.open(encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
