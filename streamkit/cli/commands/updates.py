"""publish, subscribe."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits, options
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, header
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.output.records import update_object
from streamkit.cli.rendering.printing import Printer, Span, start_of
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.cli.rendering.printing import Text
    from streamkit.client import AsyncClient
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
        str, typer.Option("--file", metavar="FILE", help="The message is in this file.")
    ] = "",
    old_file: Annotated[str, typer.Option("-f", hidden=True, help="As --file.")] = "",
    headers: Annotated[
        list[str] | None, typer.Option("-H", "--header", metavar="KEY=VALUE", help="Metadata.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Do not print sequences.")] = False,
) -> int:
    """Publish a message; prints the sequence that it got."""
    file = file or old_file
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
    everything: options.All = False,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=0, help="The last N, then what comes.")
    ] = None,
    since: options.Since = "",
    from_seq: options.FromSeq = 0,
    until: options.Until = "",
    count: options.Count = 0,
    old_count: Annotated[int, typer.Option("-n", hidden=True, min=0, help="As --count.")] = 0,
    timeout: options.Timeout = "",
    until_end: Annotated[
        bool, typer.Option("-e", "--exit", help="Stop when all that is stored was shown.")
    ] = False,
    latest: options.Latest = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if anything was lost.")
    ] = False,
    output: options.RecordOutput = "",
    time: options.TimeStyle = "local",
) -> int:
    """Show the updates of topics as they are published."""
    if new and (everything or last or since or from_seq):
        raise UsageError("give one of --new, --all, --last, --since and --from-seq")
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    span = Span(count or old_count, until)
    printer = _printer(session, output, time)
    stored = until_end or span.over
    if stored and not (everything or last or since or from_seq):
        raise UsageError("--exit, and --until a time that is past, need one of --all, --last, "
                         "--since and --from-seq: nothing else is stored")  # fmt: skip
    try:
        async with session.client() as client, asyncio.timeout(seconds):
            newest = await _newest(client) if stored else None
            if newest != 0:
                start = await start_of(
                    client, everything=everything, last=last, since=since, from_seq=from_seq
                )
                stream = client.subscribe(
                    *topics, start=start or "new", latest=latest, on_loss=session.on_loss
                )
                async with stream as updates:
                    session.watch_reader()
                    await _show(updates, printer, span, newest)
    except TimeoutError:
        session.output.flush()
        return exits.TIMEOUT
    finally:
        printer.close()
    return exits.FAILED if strict and session.loss_told else exits.OK


async def _newest(client: AsyncClient) -> int:
    status = await client.status()
    return next((stream.newest for stream in status.streams if stream.name == "updates"), 0)


async def _show(updates: Any, printer: Printer[Update], span: Span, newest: int | None) -> None:
    """Show until the span is full or over, or everything up to `newest` was covered."""
    end = None if span.seconds is None else asyncio.get_running_loop().time() + span.seconds
    while not newest or updates.position is None or updates.position.sequence < newest:
        try:
            # The last stored records may be of other topics: then nothing comes at the end.
            async with asyncio.timeout(QUIET_AT_END if newest else None), asyncio.timeout_at(end):
                batch = await updates.receive()
        except TimeoutError:
            return
        if not batch:
            return
        for update in batch:
            if not span.holds(update.timestamp):
                return
            printer.show(update)
            span.count()
            if span.full:
                return


def _printer(session: Session, output: str, time: str) -> Printer[Update]:
    def text(update: Update) -> Text:
        from streamkit.cli.rendering.records import update_text

        return update_text(update, time=time)

    return Printer(
        session, output, time, raw=lambda update: update.message, shown=update_object, text=text
    )
