"""gen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.scaffold.generate import Generated

__all__ = ["register"]

_LOOK_EVERY = 0.3
"""Seconds between two looks at the files with --watch."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "gen", local=True)(_gen)


async def _gen(
    session: Session,
    protos: Annotated[list[Path], typer.Argument(help=".proto files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the Python packages.")],
    include: Annotated[
        list[Path] | None,
        typer.Option("-I", "--include", help="Another folder to search for imports."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; end with 1 where something is stale.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and generate again after every change.")
    ] = False,
) -> int:
    """Generate Python from .proto files: messages, service bases, stubs, descriptors."""
    from streamkit.errors import StreamkitError
    from streamkit.scaffold.generate import generate

    if check and watch:
        raise UsageError("--check and --watch exclude each other")
    if not watch:
        generated = generate(protos, out, include=include or (), write=not check)
        _tell(session, generated, check)
        return exits.FAILED if check and generated.changed else exits.OK
    before: dict[Path, int] | None = None
    while True:
        now = _times([*protos, *(include or ())])
        if now != before:
            before = now
            try:
                _tell(session, generate(protos, out, include=include or ()), check)
            except StreamkitError as error:
                session.note(exits.one_line(error))
        await asyncio.sleep(_LOOK_EVERY)


def _tell(session: Session, generated: Generated, check: bool) -> None:
    from streamkit.scaffold.names import hiding

    out = generated.out
    for path in generated.changed:
        session.note(f"{out / path}: {'is not up to date' if check else 'written'}")
    if not generated.changed:
        session.note(f"{out}: {', '.join(generated.packages)}: up to date")
    for name in hiding(generated.packages):
        session.note(f"{out / name} hides another {name} where {out} is on Python's path")


def _times(places: list[Path]) -> dict[Path, int]:
    found = {}
    for place in places:
        for path in sorted(place.rglob("*.proto")) if place.is_dir() else [place]:
            try:
                found[path] = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # an editor that replaces the file: there again at the next look
    return found
