"""The typer application: every command in the order in which help lists them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from streamkit.cli.commands import (
    backup,
    call,
    catalog,
    config,
    context,
    demo,
    doctor,
    gen,
    jobs,
    logs,
    new,
    query,
    running,
    serve,
    ship,
    sink,
    token,
    transfer,
)
from streamkit.cli.commands import run as execute
from streamkit.cli.commands import updates as topics
from streamkit.cli.exits import OK, USAGE
from streamkit.cli.options import Group
from streamkit.sanitise import sanitise

__all__ = ["app", "run"]

app = typer.Typer(
    name="streamkit",
    cls=Group,
    help="Live updates, query results, job progress and logs over gRPC streams.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from streamkit import __version__

        typer.echo(f"streamkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    server: Annotated[
        str,
        typer.Option(
            "-s", "--server", metavar="HOST:PORT", help="Server; every command takes it as well."
        ),
    ] = "",
) -> None:
    if server:
        import os

        # What a command's own option falls back on; children of `run` see it too, as they should.
        os.environ["STREAMKIT_SERVER"] = server


for group in (
    serve,
    demo,
    topics,
    query,
    execute,
    jobs,
    logs,
    ship,
    sink,
    catalog,
    running,
    doctor,
    backup,
    transfer,
    config,
    call,
    new,
    gen,
    token,
    context,
):
    group.register(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        code = app(
            args=None if arguments is None else list(arguments),
            prog_name="streamkit",
            standalone_mode=False,
        )
    except typer.Abort:
        return 130
    except Exception as error:
        # A usage error of typer's own: its class has moved between releases, its shape has not.
        say = getattr(error, "format_message", None)
        if say is None:
            raise
        where = getattr(error, "ctx", None)
        path = where.command_path if where is not None else "streamkit"
        text = " ".join(say().split()).removesuffix(".")
        if not text:
            return USAGE
        sys.stderr.write(
            f"streamkit: {sanitise(text[0].lower() + text[1:])}; see `{path} --help`\n"
        )
        return USAGE
    return code if isinstance(code, int) else OK
