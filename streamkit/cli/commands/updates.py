"""publish, subscribe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, header, moment
from streamkit.cli.options import command
from streamkit.cli.output.records import TIME_STYLES
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.generated.streamservice import Update

__all__ = ["register"]

MAX_BODY = 4 * 1024 * 1024
QUIET_AT_END = 1.0
"""Seconds without a record after which a stored history counts as read."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "publish")(_publish)
    command(app, "subscribe")(_subscribe)


async def _publish(
    session: Session,
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    body: Annotated[
        str | None, typer.Argument(metavar="BODY|-", help="The message; - is standard input.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Standard input, one message a line.")
    ] = False,
    file: Annotated[
        str, typer.Option("-f", "--file", metavar="FILE", help="The message is in this file.")
    ] = "",
    headers: Annotated[
        list[str] | None, typer.Option("-H", "--header", metavar="KEY=VALUE", help="Metadata.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Do not print sequences.")] = False,
) -> int:
    """Publish a message; prints the sequence that it got."""
    metadata = dict(value_of("-H", header, text) for text in headers or [])
    if sum((body not in (None, "-"), bool(file), lines)) > 1:
        raise UsageError("give one of BODY, --file and --lines")
    if body is None and not file and not lines and sys.stdin.isatty():
        raise UsageError("no message: give it as an argument, or - to type it, or --file")
    if lines:
        return await _publish_lines(session, topic, metadata, quiet)
    if file:
        data: str | bytes = await asyncio.to_thread(_read_file, file)
    elif body in (None, "-"):
        from streamkit.cli.input.intake import stdin_bytes

        data = (await stdin_bytes(MAX_BODY + 1)).removesuffix(b"\n")
    else:
        assert body is not None
        data = body
    if len(data) > MAX_BODY:
        raise UsageError(f"a message has at most {MAX_BODY} bytes; --lines sends many")
    async with session.client() as client:
        sequence = await client.publish(topic, data, metadata=metadata)
    if not quiet:
        session.output.line(str(sequence))
    return exits.OK


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_BODY + 1)


async def _publish_lines(
    session: Session, topic: str, metadata: dict[str, str], quiet: bool
) -> int:
    from streamkit.cli.input.intake import stdin_lines

    count = 0
    async with session.client() as client, client.publisher() as publisher:
        async with aclosing(stdin_lines()) as batches:
            async for batch in batches:
                for line in batch:
                    await publisher.send(topic, line, metadata=metadata)
                    count += 1
        last = await publisher.flush()
        dropped = publisher.dropped
    if not quiet:
        session.note(f"published {count - dropped} messages to {topic}; the last has {last}")
    return exits.FAILED if dropped else exits.OK


async def _subscribe(
    session: Session,
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC...", help="orders.eu, orders.*, orders.>, >")
    ],
    new: Annotated[bool, typer.Option("--new", help="From now on. The default.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All that is still kept.")] = False,
    last: Annotated[int, typer.Option("--last", metavar="N", min=0, help="The last N.")] = 0,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Since 10m ago, today, ISO 8601.")
    ] = "",
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="Stop after N.")] = 0,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Stop then; exit code 124.")
    ] = "",
    until_end: Annotated[
        bool, typer.Option("-e", "--exit", help="Stop when all that is stored was shown.")
    ] = False,
    latest: Annotated[
        bool, typer.Option("--latest", help="When slow, only the newest of each topic.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if anything was lost.")
    ] = False,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="pretty|raw|jsonl", help="Output format.")
    ] = "",
    time: Annotated[
        str, typer.Option("--time", metavar="|".join(TIME_STYLES), help="Times in pretty.")
    ] = "local",
) -> int:
    """Show the updates of topics as they are published."""
    from streamkit import client as api

    if sum((new, everything, bool(last), bool(since))) > 1:
        raise UsageError("give one of --new, --all, --last and --since")
    start: Any = "new"
    if everything:
        start = "all"
    elif last:
        start = api.last(last)
    elif since:
        start = api.since(value_of("--since", moment, since))
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    show = _printer(session, output, time)
    if until_end and start == "new":
        raise UsageError("--exit needs --all, --last or --since: nothing else is stored")
    async with session.client() as client:
        newest = 0
        if until_end:
            status = await client.status()
            newest = next((s.newest for s in status.streams if s.name == "updates"), 0)
            if not newest:
                return exits.OK
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(seconds):
                stream = client.subscribe(
                    *topics, start=start, latest=latest, on_loss=session.on_loss
                )
                async with stream as updates:
                    session.watch_reader()
                    await _show(updates, show, count, newest)
        except TimeoutError:
            session.output.flush()
            return exits.TIMEOUT
    return exits.FAILED if strict and session.loss_told else exits.OK


async def _show(updates: Any, show: Callable[[Update], None], count: int, newest: int) -> None:
    """Show until `count` updates were shown or everything up to `newest` was covered."""
    shown = 0
    while not newest or updates.position is None or updates.position.sequence < newest:
        try:
            # The last stored records may be of other topics: then nothing comes at the end.
            async with asyncio.timeout(QUIET_AT_END if newest else None):
                batch = await updates.receive()
        except TimeoutError:
            return
        if not batch:
            return
        for update in batch:
            show(update)
            shown += 1
            if count and shown >= count:
                return


def _printer(session: Session, output: str, time: str) -> Callable[[Update], None]:
    if time not in TIME_STYLES:
        raise UsageError(f"--time: {time!r} is not one of {', '.join(TIME_STYLES)}")
    if output == "raw":
        return lambda update: session.output.line(update.message)
    if output == "jsonl":
        from streamkit.cli.output.records import update_object
        from streamkit.sanitise import json_text

        return lambda update: session.output.line(json_text(update_object(update)))
    if output in ("", "pretty"):
        from streamkit.cli.rendering.records import RecordPrinter, update_text

        printer = RecordPrinter(session.output)
        return lambda update: printer.print(update_text(update, time=time))
    raise UsageError(f"-o: {output!r} is not pretty, raw or jsonl")
