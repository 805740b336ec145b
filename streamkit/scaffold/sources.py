"""Which .proto files are meant, and under which name each is known to protoc."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamkit.errors import InvalidArgumentError

__all__ = ["Sources", "find_sources"]


@dataclass(frozen=True, slots=True)
class Sources:
    """What protoc is given: names relative to the roots, and the roots in the order of search."""

    names: tuple[str, ...]
    roots: tuple[Path, ...]


def find_sources(protos: Iterable[Path], include: Sequence[Path] = ()) -> Sources:
    """Return the files that `protos` (files and folders) mean.

    A folder stands for every .proto file below it and is a root of imports itself; a file belongs
    to the first root of `include` that holds it, else to its own folder. Raises
    InvalidArgumentError for a path that is not there, for a file of another kind, and where no file
    is left.
    """
    names: dict[str, Path] = {}
    roots = [_folder(root) for root in include]
    for given in protos:
        if given.is_dir():
            files = sorted(given.rglob("*.proto"))
            root = next((root for root in roots if given.resolve().is_relative_to(root)), None)
            if root is None:
                root = given.resolve()
                roots.append(root)
            if not files:
                raise InvalidArgumentError(f"{given}: no .proto file is in this folder")
        elif not given.exists():
            raise InvalidArgumentError(f"{given}: there is no such file or folder")
        elif given.suffix != ".proto":
            raise InvalidArgumentError(f"{given}: this is no .proto file")
        else:
            files = [given]
            root = next((root for root in roots if given.resolve().is_relative_to(root)), None)
            if root is None:
                root = given.resolve().parent
                roots.append(root)
        for file in files:
            name = file.resolve().relative_to(root).as_posix()
            other = names.setdefault(name, file.resolve())
            if other != file.resolve():
                raise InvalidArgumentError(
                    f"{file} and {other} are both {name} below their roots",
                    hint="name their common folder with --include",
                )
    if not names:
        raise InvalidArgumentError("no .proto file was named")
    return Sources(tuple(sorted(names)), tuple(dict.fromkeys(roots)))


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise InvalidArgumentError(f"{root}: there is no such folder to search for imports")
    return root.resolve()
