"""query."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits, options
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, parameter
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session
from streamkit.errors import InvalidArgumentError, QueryError
from streamkit.formats import FORMATS, TextOptions

if TYPE_CHECKING:
    from streamkit.cli.output.sink import Sink
    from streamkit.client import Query

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "query")(_query)


MAX_STATEMENT = 16 * 1024 * 1024
"""Bytes read from standard input; the server takes less."""


async def _query(
    session: Session,
    sql: Annotated[
        str, typer.Argument(metavar="SQL|-", help="One statement; - is standard input.")
    ] = "",
    file: Annotated[
        str, typer.Option("--file", metavar="FILE", help="The statement is in this file.")
    ] = "",
    old_file: Annotated[str, typer.Option("-f", hidden=True, help="As --file.")] = "",
    batch: Annotated[
        int,
        typer.Option(
            "--batch",
            metavar="N",
            min=0,
            help="Rows in one message; 0 is 100, in arrow and parquet 8192.",
        ),
    ] = 0,
    database: options.Database = "",
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="NAME=VALUE",
            help="A parameter (:NAME). NAME:TYPE=VALUE with text, int, real, bool, decimal, blob "
            "or time says what it is.",
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FORMAT",
            help=f"{', '.join(FORMATS)}; table on a terminal, else csv.",
        ),
    ] = "",
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="Write the result to this file.")
    ] = "",
    no_header: Annotated[bool, typer.Option("--no-header", help="Without column names.")] = False,
    null: Annotated[
        str | None, typer.Option("--null", metavar="TEXT", help="How NULL is written as text.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=0, help="Rows of a table on a terminal; 0: all."),
    ] = 1000,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="The longest the query may run.")
    ] = "",
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress and no row count.")
    ] = False,
) -> int:
    """Run one SQL statement on the server and stream its rows.

    A result that is not complete ends with a code other than 0 and says after how many rows.
    """
    statement = await _statement(sql, file or old_file)
    chosen = _format(session, output, out)
    given: Any = dict(value_of("-p", parameter, text) for text in parameters or [])
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    binary = chosen in ("arrow", "parquet")
    if binary and not out and session.output.terminal.is_tty:
        raise UsageError(f"{chosen} is not for a terminal; use --out FILE or a pipe")
    from streamkit.cli import sinks as results

    text = TextOptions(header=not no_header, null=null)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(session.client())
        sink = stack.enter_context(results.open_sink(session.output, chosen, out, text, limit))
        query = client.query(
            statement,
            given,
            database=database,
            batch=batch,
            format="arrow" if binary else "rows",
            timeout=seconds,
        )
        progress = results.progress_for(session.output, sink, quiet=quiet)
        try:
            await _stream(query, sink, progress, binary)
        except asyncio.CancelledError:
            progress.close()
            session.note(f"interrupted after {sink.count:,} rows; the server was told to stop")
            raise
        except BrokenPipeError:
            progress.close()
            raise
        except Exception as error:
            progress.close()
            sink.abandon()
            if sink.started:
                kept = f"; {out} is as it was before" if out else ""
                session.note(f"the result is not complete: failed after {sink.count:,} rows{kept}")
            if isinstance(error, InvalidArgumentError):
                # The command line was right, the statement was not.
                raise QueryError(error.message, hint=error.hint) from error
            raise
        progress.close()
    if not quiet:
        progress.summary()
    return exits.OK


async def _stream(query: Query, sink: Sink, progress: Any, binary: bool) -> None:
    async with query:
        await query.start()
        if not binary:
            sink.begin(query.columns)
        async for result in query.batches():
            if binary:
                await asyncio.to_thread(sink.arrow, result)
            else:
                sink.rows(result.rows)
            progress.update(query.total_rows)
            if sink.full:
                break
    sink.end(query.total_rows)


async def _statement(sql: str, file: str) -> str:
    if bool(sql) == bool(file):
        raise UsageError('give one statement: "SELECT ...", - for standard input, or --file FILE')
    if sql and sql != "-":
        return sql
    if file:
        data = await asyncio.to_thread(Path(file).read_bytes)
    else:
        from streamkit.cli.input.intake import stdin_bytes

        data = await stdin_bytes(MAX_STATEMENT)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = file or "standard input"
        raise UsageError(f"{where}: byte {error.start + 1} is not UTF-8 text") from None


def _format(session: Session, output: str, out: str) -> str:
    if output:
        if output not in FORMATS:
            raise UsageError(f"-o: {output!r} is not one of {', '.join(FORMATS)}")
        return output
    if out:
        suffix = Path(out).suffix.removeprefix(".")
        known = {"md": "markdown", "txt": "table", "ndjson": "jsonl"}.get(suffix, suffix)
        return known if known in FORMATS else "csv"
    return "table" if session.output.terminal.is_tty else "csv"
