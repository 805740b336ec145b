"""Where a server keeps what is stored, from what somebody typed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from streamkit.cli.exits import UsageError

__all__ = [
    "WITH_PASSWORD",
    "chosen_store",
    "default_store",
    "from_environment",
    "made_ready",
    "shown",
]

WITH_PASSWORD = re.compile(r"//[^/@:]*:[^@]+@|[?&](?:ssl)?password=.")
"""A URL that holds one."""


def default_store() -> Path:
    """The store of a server that was not told where to keep it."""
    import platformdirs

    return Path(platformdirs.user_data_dir("streamkit", appauthor=False)) / "streamkit.db"


def chosen_store(store: str, data: str, *, typed: bool) -> tuple[str, str]:
    """The store, and the folder for this server's copy of one that is shared. Raises UsageError,
    also for a password where everybody can read it."""
    from streamkit.journal.address import is_log

    if store.startswith("$"):
        store = from_environment("--store", store)
    elif typed and WITH_PASSWORD.search(store):
        raise UsageError(
            "--store: its password can be read in the list of processes: give"
            " --store '$VARIABLE' whose value that is, or the password in PGPASSWORD,"
            " ~/.pgpass or NATS_PASSWORD"
        )
    if is_log(store):
        folder = Path(data).expanduser() if data else default_store().with_name("copy")
        return store, str(folder)
    if data:
        raise UsageError("--data is for a store that is shared: postgresql:// or nats://")
    if store and store != ":memory:":
        store = str(Path(store).expanduser())
    return store, ""


def made_ready(store: str) -> None:
    """Make the folder that a store is to be in."""
    from streamkit.journal.address import is_log

    if store and store != ":memory:" and not is_log(store):
        Path(store).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def shown(store: str) -> str:
    """A store as it is told to a person."""
    from streamkit.journal.address import is_log, without_password

    if store == ":memory:":
        return "in memory, gone at the end"
    return without_password(store) if is_log(store) else store


def from_environment(what: str, variable: str) -> str:
    """What a '$VARIABLE' stands for, where the shell has left that to us. Raises UsageError."""
    try:
        return os.environ[variable[1:].strip("{}")]
    except KeyError:
        raise UsageError(f"{what}: {variable[1:]} is not in the environment") from None
