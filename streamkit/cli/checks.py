"""What may be wrong with a server, and what to do about it. Each check looks at one thing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamkit.config import Retention, TransportLimits
from streamkit.errors import StreamkitError
from streamkit.terms import VERSION

if TYPE_CHECKING:
    from streamkit.generated.streamservice import ServerStatus

__all__ = [
    "Finding",
    "of_access",
    "of_certificate",
    "of_disk",
    "of_files",
    "of_fsync",
    "of_loop",
    "of_status",
    "of_store",
    "of_token",
    "of_wal",
]

_DAYS = 14
_SKEW = 2.0
_SLOW = 0.05
_TRIES = 50
_CHECK_SECONDS = 20.0
_LITTLE = 64 * 1024 * 1024
_BESIDE = 64
"""Files that a server has open beside its connections."""


class Finding(NamedTuple):
    """What one check has seen."""

    check: str
    state: str
    """ok, warn or fail."""
    text: str
    advice: str = ""
    """What to do."""


# ---- the server, as it answers ----


def of_status(status: ServerStatus, asked: float, answered: float, epoch: str) -> Iterator[Finding]:
    """What a server says of itself, which was asked and answered at these times (since 1970);
    `epoch` is what it had when it was asked before, if it was."""
    if status.version == VERSION:
        yield Finding("version", "ok", f"{VERSION} on both sides")
    else:
        text = f"the server has {status.version}, this is {VERSION}"
        yield Finding("version", "warn", text, "update the older one")
    if status.now.timestamp() > 0:
        there = status.now.timestamp()
        skew = max(asked - there, there - answered, 0.0)
        if skew <= _SKEW:
            yield Finding("clock", "ok", "the clocks agree")
        else:
            advice = "set both by NTP: times of records and expiry of tokens depend on them"
            yield Finding("clock", "warn", f"the clocks differ by {skew:.0f} s", advice)
    for fault in status.faults:
        yield Finding("server", "fail", fault, "see the server's log")
    if status.draining:
        yield Finding("server", "warn", "it is on its way down", "wait, or start it again")
    elif not status.faults:
        yield Finding("server", "ok", f"serves, {status.connections} connections")
    if epoch and epoch != status.epoch:
        yield Finding(
            "epoch",
            "warn",
            "the store is another one than when this was asked before: restored, or new",
            "readers that kept a position start again from where they choose",
        )


def of_certificate(not_after: float, now: float) -> Finding:
    """How long the server's certificate is valid; both in seconds since 1970."""
    days = (not_after - now) / 86400
    until = f"{datetime.fromtimestamp(not_after, UTC):%Y-%m-%d}"
    advice = "put a new one in its file: it is read again by itself"
    if days < 0:
        return Finding("certificate", "fail", f"it ended on {until}", advice)
    if days < _DAYS:
        return Finding("certificate", "warn", f"it ends on {until}", advice)
    return Finding("certificate", "ok", f"valid until {until}")


# ---- this machine ----


def of_token(path: str) -> Finding:
    """The file of a client's token."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        return Finding("token", "fail", f"cannot read {path}: {error.strerror}", "see --token-file")
    if mode & 0o077:
        return Finding("token", "warn", f"{path} can be read by others", f"chmod 600 {path}")
    return Finding("token", "ok", f"{path} is yours alone")


def of_access(path: str, now: float) -> Iterator[Finding]:
    """The access file of a server."""
    from streamkit.access.file import read_rules

    try:
        rules = read_rules(path)
    except StreamkitError as error:
        yield Finding("access", "fail", error.message, error.hint or "mend the file")
        return
    ending = [
        token.id
        for token in rules.tokens.values()
        if token.expires is not None and now <= token.expires < now + _DAYS * 86400
    ]
    if ending:
        text = f"tokens that end within {_DAYS} days: {', '.join(sorted(ending))}"
        yield Finding("access", "warn", text, "make their next ones by `streamkit token create`")
    else:
        yield Finding("access", "ok", f"{path}: {len(rules.tokens)} tokens")


def of_store(path: str, seconds: float = _CHECK_SECONDS) -> Finding:
    """SQLite's own look at the file, for at most so long."""
    if not os.path.exists(path):
        return Finding("store", "ok", f"{path} is not there yet: it will be made")
    end = time.monotonic() + seconds
    try:
        address = f"{Path(path).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as opened:
            opened.set_progress_handler(lambda: int(time.monotonic() > end), 100_000)
            (told,) = opened.execute("pragma quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return Finding("store", "ok", f"{path}: nothing wrong in the first {seconds:g} s")
        return Finding("store", "fail", f"{path}: {error}", "look at the file and its folder")
    except sqlite3.DatabaseError as error:
        told = str(error)
    if told != "ok":
        return Finding("store", "fail", f"{path}: {told}", "put a backup in its place: restore")
    return Finding("store", "ok", f"{path} is sound")


def of_wal(path: str, retention: Retention) -> Finding:
    """The write-ahead log of a store."""
    from streamkit.cli.output.records import size_text
    from streamkit.journal.sqlite.retention import wal_bound

    size, bound = _size(f"{path}-wal"), wal_bound(retention)
    if size > bound:
        text = f"the write-ahead log has {size_text(size)}: a reader holds it"
        return Finding("wal", "warn", text, "see `streamkit top` for a query that runs long")
    return Finding("wal", "ok", f"the write-ahead log has {size_text(size)}")


def of_disk(folder: str, path: str, max_bytes: int, free: int | None = None) -> Finding:
    """Whether the store may grow to its bound. `free` bytes are asked for if not given."""
    from streamkit.cli.output.records import size_text

    free = shutil.disk_usage(folder).free if free is None else free
    wanted = max(0, max_bytes - _size(path)) if max_bytes else _LITTLE
    text = f"{size_text(free)} free in {folder}"
    advice = "free some, or lower --max-bytes"
    if free < _LITTLE:
        return Finding("disk", "fail", text, advice)
    if free < wanted:
        more = f"{text}, and the store may grow by {size_text(wanted)}"
        return Finding("disk", "warn", more, advice)
    return Finding("disk", "ok", text)


def of_fsync(folder: str, seconds: list[float] | None = None) -> Finding:
    """How long the disk takes to keep something: the slowest but one of some tries."""
    taken = sorted(_fsyncs(folder) if seconds is None else seconds)
    worst = taken[-2]
    text = f"the disk takes {worst * 1000:.1f} ms to keep a block (99 % of {len(taken)} tries)"
    if worst > _SLOW:
        advice = "--durability full waits for that at every write: another disk, or normal"
        return Finding("fsync", "warn", text, advice)
    return Finding("fsync", "ok", text)


def of_files(soft: int, connections: int = TransportLimits().max_connections) -> Finding:
    """How many files a process may open, a connection being one."""
    if soft < connections + _BESIDE:
        return Finding(
            "files",
            "warn",
            f"a process may open {soft} files, and a server has up to {connections} connections",
            "ulimit -n 65536, or LimitNOFILE=65536 for systemd",
        )
    return Finding("files", "ok", f"a process may open {soft} files")


def of_loop(there: bool) -> Finding:
    """Whether the faster event loop is installed."""
    if there:
        return Finding("uvloop", "ok", "installed")
    advice = "pip install 'streamkit-grpc[speed]'"
    return Finding("uvloop", "warn", "not installed: a server is slower without it", advice)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _fsyncs(folder: str) -> list[float]:
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_TRIES):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return taken
