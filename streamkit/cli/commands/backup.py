"""backup, restore, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamkit.cli import exits, options
from streamkit.cli.input.stores import default_store
from streamkit.cli.options import command
from streamkit.cli.session import Session

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "backup")(_backup)
    command(app, "restore", local=True)(_restore)
    command(app, "prune")(_prune)


async def _backup(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Replaced once the new is whole.")],
) -> int:
    """Save all that the server stores, as of now, while it goes on. For administrators."""
    async with session.client() as client:
        size = await client.backup(_path(file))
    session.note(f"saved {size:,} bytes to {file}")
    return exits.OK


async def _restore(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="As `streamkit backup` wrote it.")],
    store: Annotated[
        str,
        typer.Option(
            "--store",
            metavar="PATH",
            help="Default: in the user's data directory.",
            show_default=False,
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a store that is there: it is lost.")
    ] = False,
) -> int:
    """Make a store of a backup, for a server that is not running yet.

    Readers that come with a position of before are told that it means nothing here.
    """
    from streamkit.journal.sqlite.copies import restore_store

    path = _path(store or str(default_store()), make=True)
    restore_store(_path(file), path, force=force)
    session.note(f"restored {path}")
    return exits.OK


async def _prune(
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell; nothing is removed.")
    ] = False,
    output: options.JsonOutput = "pretty",
) -> int:
    """Remove what retention does not keep, now instead of little by little. For administrators.

    Tells what is removed by each rule; those of the whole store have no pattern.
    """
    from streamkit.cli.rendering.tables import show_table

    async with session.client() as client:
        pruned = await client.prune(dry_run=dry_run)
    names = ("stream", "pattern", "records", "bytes")
    rows = [
        dict(zip(names, (p.stream, p.pattern, str(p.records), str(p.bytes)), strict=True))
        for p in pruned
    ]
    show_table(session.output, output, names, rows)
    return exits.OK


def _path(text: str, *, make: bool = False) -> str:
    path = Path(text).expanduser()
    if make:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(path)
