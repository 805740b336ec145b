"""Named connections: a server with what it takes to talk to it, in a file of the user's.

A connection is taken as a whole. Its token belongs to its server: whoever names another server, by
an option or in the environment, gets nothing of it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from streamkit.cli.exits import UsageError
from streamkit.cli.later import json, tomllib

__all__ = ["Connection", "Connections", "with_context"]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What the options of a connection say. Files are named, their contents stay where they are."""

    server: str
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    token_file: str = ""
    insecure: bool = False


_KEYS = {field.name: field.type for field in fields(Connection)}


class Connections:
    """The connections in a file, by name. Raises UsageError for a file that says something else."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or _place()
        self.current = ""
        """The one that is used when nothing else is said."""
        self.by_name: dict[str, Connection] = {}
        try:
            data = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path}: {error}") from None
        self._take(data)

    def _take(self, data: dict[str, Any]) -> None:
        try:
            self.current = str(data.get("current", ""))
            for name, values in data.get("context", {}).items():
                self.by_name[name] = Connection(**values)
        except (TypeError, AttributeError):
            raise UsageError(
                f"{self.path}: a context has the keys {', '.join(_KEYS)}; no others"
            ) from None

    def chosen(self, name: str) -> Connection:
        """The connection of that name. Raises UsageError."""
        found = self.by_name.get(name)
        if found is None:
            known = ", ".join(sorted(self.by_name)) or "none; `streamkit context add` makes one"
            raise UsageError(f"no context {name!r}; there are: {known}")
        return found

    def save(self) -> None:
        """Write the file anew, in one step, for its owner alone."""
        lines = [f"current = {json.dumps(self.current)}"]
        for name, connection in self.by_name.items():
            lines.append(f"\n[context.{json.dumps(name)}]")
            lines += [
                f"{key} = {json.dumps(value)}"
                for key, value in asdict(connection).items()
                if value or key == "server"
            ]
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        import tempfile

        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".contexts.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(temporary, self.path)


def with_context(given: dict[str, Any]) -> dict[str, Any]:
    """The options of a command, with those of the connection that is named or in use.

    None is where a server is named: by --server, or by $STREAMKIT_SERVER while no context is.
    """
    named = given["context"] or os.environ.get("STREAMKIT_CONTEXT", "")
    if given["server"]:
        if given["context"]:
            raise UsageError("--context says which server: leave out --server")
        return given
    if not named and os.environ.get("STREAMKIT_SERVER"):
        return given
    known = Connections()
    name = named or known.current
    if not name:
        return given
    chosen = asdict(known.chosen(name))
    if given["cert"]:
        chosen["cert"] = chosen["key"] = ""
    return given | {key: given[key] or value for key, value in chosen.items()}


def _place() -> Path:
    import platformdirs

    folder = platformdirs.user_config_dir("streamkit", appauthor=False)
    return Path(folder) / "contexts.toml"
