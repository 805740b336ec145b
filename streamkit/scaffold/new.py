"""A project that runs, from the files in `template/`: nothing is generated, nothing is asked."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from streamkit.errors import AlreadyExistsError, InvalidArgumentError

__all__ = ["Project", "new_project"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TAKEN = frozenset({"streamkit", "tests", "protos", "betterproto", "grpclib", "pytest"})
_TEXT = ".txt"
"""Ends the name of a file in which names are put in, so that no tool takes it for code of ours."""


@dataclass(frozen=True, slots=True)
class Project:
    """What was made."""

    folder: Path
    package: str
    files: tuple[Path, ...]
    """Relative to the folder."""


def new_project(folder: Path) -> Project:
    """Write a project into a folder that is new or empty; its last part is the project's name.

    InvalidArgumentError for a name that a Python package cannot have, AlreadyExistsError for a
    folder that holds something; then nothing was written.
    """
    name = folder.resolve().name
    package = name.replace("-", "_").lower()
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise InvalidArgumentError(
            f"{name!r} cannot be the name of a Python package",
            hint="use letters, digits, - and _, with a letter first",
        )
    if package in _TAKEN or package in sys.stdlib_module_names:
        raise InvalidArgumentError(
            f"{name!r} is the name of another Python package", hint="choose another"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExistsError(f"{folder} is there and not empty")
    written = []
    for path, source in _walk(files("streamkit.scaffold").joinpath("template"), Path()):
        content = source.read_bytes()
        if path.name.endswith(_TEXT):
            path = path.with_name(path.name.removesuffix(_TEXT))
            text = content.decode().replace("PACKAGE", package).replace("PROJECT", name)
            content = text.encode()
        path = Path(*(package if part == "PACKAGE" else part for part in path.parts))
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.append(path)
    return Project(folder, package, tuple(sorted(written)))


def _walk(folder: Traversable, path: Path) -> Iterator[tuple[Path, Traversable]]:
    for one in folder.iterdir():
        if one.is_dir():
            yield from _walk(one, path / one.name)
        else:
            yield path / one.name, one
