"""token create, list, revoke: who may use a server, kept in its access file."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration
from streamkit.cli.options import Group, command
from streamkit.cli.session import Session

__all__ = ["register"]

_ACCESS = typer.Option(
    "--access",
    metavar="FILE",
    envvar="STREAMKIT_ACCESS",
    help="The access file of the server; made if it is not there.",
    show_default=False,
)
_NAME = typer.Argument(metavar="NAME", help="Letters, digits, dots and dashes.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        cls=Group,
        name="token",
        help="Make and revoke the tokens of a server's access file.",
        no_args_is_help=True,
    )
    command(group, "create", local=True)(_create)
    command(group, "list", local=True)(_list)
    command(group, "revoke", local=True)(_revoke)
    app.add_typer(group)


async def _create(
    session: Session,
    name: Annotated[str, _NAME],
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "-r", "--role", metavar="ROLE", help="admin, reader, writer, or one of the file's own."
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long it is valid; never ends.")
    ] = "never",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")] = "",
    access: Annotated[str, _ACCESS] = "",
) -> int:
    """Make a token and print it, this once: only its SHA-256 is kept."""
    from streamkit.access.file import add_token

    if not roles:
        raise UsageError("--role: a token without a role may do nothing; give admin, reader, ...")
    until = None
    if expires != "never":
        until = time.time() + value_of("--expires", duration, expires)
    secret = add_token(_file(access), name, roles, expires=until, note=note)
    session.note(f"the token of {name!r}; it is shown only now:")
    session.output.line(secret)
    return exits.OK


async def _list(session: Session, access: Annotated[str, _ACCESS] = "") -> int:
    """List the tokens with their roles; not the tokens themselves, nobody has them."""
    from streamkit.access.file import read_rules

    now = time.time()
    for token in read_rules(_file(access)).tokens.values():
        until = "never expires"
        if token.expires is not None:
            verb = "expires" if token.expires > now else "EXPIRED"
            until = f"{verb} {datetime.fromtimestamp(token.expires, UTC):%Y-%m-%d %H:%M}Z"
        roles = ",".join(token.roles) or "-"
        session.output.line(f"{token.id}\t{roles}\t{until}\t{token.note}".rstrip())
    return exits.OK


async def _revoke(
    session: Session, name: Annotated[str, _NAME], access: Annotated[str, _ACCESS] = ""
) -> int:
    """Remove a token. A running server ends what it does within a second."""
    from streamkit.access.file import remove_token

    remove_token(_file(access), name)
    session.note(f"revoked {name!r}")
    return exits.OK


def _file(access: str) -> str:
    if not access:
        raise UsageError("--access: name the server's access file, or set $STREAMKIT_ACCESS")
    return access
