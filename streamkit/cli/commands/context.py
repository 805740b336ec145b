"""context add, use, list, show, remove: connections that have a name."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.contexts import Connection, Connections
from streamkit.cli.exits import UsageError
from streamkit.cli.options import Group, command
from streamkit.cli.session import Session

__all__ = ["register"]

_NAME = typer.Argument(metavar="NAME", help="Of the context.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        name="context",
        cls=Group,
        help="Give names to connections: a server, its authority, your token.",
        no_args_is_help=True,
    )
    for name, body in (
        ("add", _add), ("use", _use), ("list", _list), ("show", _show), ("remove", _remove)
    ):  # fmt: skip
        command(group, name, local=True)(body)
    app.add_typer(group)


async def _add(
    session: Session,
    name: Annotated[str, _NAME],
    server: Annotated[
        str, typer.Option("-s", "--server", metavar="HOST:PORT", help="Server, also unix:PATH.")
    ] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Connect with TLS.")] = False,
    ca: Annotated[str, typer.Option("--ca", metavar="FILE", help="Trust this authority.")] = "",
    cert: Annotated[str, typer.Option("--cert", metavar="FILE", help="Client certificate.")] = "",
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="Its private key.")] = "",
    token_file: Annotated[
        str, typer.Option("--token-file", metavar="FILE", help="Show the token in this file.")
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Show the token without TLS.")
    ] = False,
) -> int:
    """Add a connection, or replace the one of that name."""
    if not server:
        raise UsageError("--server: a context needs one")
    files = {"ca": ca, "cert": cert, "key": key, "token_file": token_file}
    known = Connections()
    known.by_name[name] = Connection(
        server=server,
        tls=tls,
        insecure=insecure,
        # It is used from other folders, too.
        **{option: _absolute(file) for option, file in files.items()},
    )
    known.save()
    session.note(f"`--context {name}`, $STREAMKIT_CONTEXT or `streamkit context use {name}`")
    return exits.OK


async def _use(session: Session, name: Annotated[str, _NAME]) -> int:
    """Use a connection whenever nothing else is said; "" uses none."""
    known = Connections()
    if name:
        known.chosen(name)
    known.current = name
    known.save()
    return exits.OK


async def _list(session: Session) -> int:
    """List the connections; the star is at the one in use."""
    known = Connections()
    for name, connection in sorted(known.by_name.items()):
        session.output.line(f"{'*' if name == known.current else ' '} {name}\t{connection.server}")
    return exits.OK


async def _show(session: Session, name: Annotated[str, _NAME]) -> int:
    """Show what a connection says. The token is in its own file and is not shown."""
    for key, value in asdict(Connections().chosen(name)).items():
        if value:
            session.output.line(f"{key}\t{value}")
    return exits.OK


async def _remove(session: Session, name: Annotated[str, _NAME]) -> int:
    """Remove a connection; the files that it names stay."""
    known = Connections()
    known.chosen(name)
    del known.by_name[name]
    if known.current == name:
        known.current = ""
    known.save()
    return exits.OK


def _absolute(file: str) -> str:
    return os.path.abspath(file) if file else ""
