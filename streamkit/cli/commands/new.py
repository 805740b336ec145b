"""new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.options import command
from streamkit.cli.session import Session

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "new", local=True)(_new)


async def _new(
    session: Session,
    folder: Annotated[
        Path, typer.Argument(metavar="NAME", help="Of the project, and of its new folder.")
    ],
) -> int:
    """Begin a project of your own: a schema, a service with a stream that resumes, its tests."""
    from streamkit.scaffold.new import new_project

    project = new_project(folder)
    note = session.output.note
    for path in project.files:
        note(f"streamkit: {folder / path}: written")
    note("next:")
    note(f"  cd {folder}")
    serve = f"streamkit serve {project.package}.service:app --reload"
    for typed, what in (
        (serve, "the server"),
        (f"python -m {project.package}.client tea milk", "in another terminal"),
        ("pytest", "its tests"),
    ):
        note(f"  {typed:{len(serve)}}   {what}")
    return exits.OK
