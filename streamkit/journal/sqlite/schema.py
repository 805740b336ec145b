"""The store's tables and how a file becomes, or is refused as, a store.

Anybody may read the tables with any SQLite tool. Times are UTC text that sorts by time and
compares with SQLite's own: `WHERE time > datetime('now', '-10 minutes')`. Maps are JSON objects
or NULL when empty. Sequences are contiguous from the oldest that is kept to the newest.
`meta`, `dedupe`, `marks` and `log_levels` are the journal's own.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from streamkit.config import JournalOptions
from streamkit.errors import StoreError
from streamkit.journal.base import Stream, new_epoch

__all__ = ["APPLICATION_ID", "TABLES", "VERSION", "end_life", "open_store", "store_error"]

APPLICATION_ID = 0x736B6974
"""Marks an SQLite file as a streamkit store: "skit"."""

TABLES = {Stream.UPDATES: "updates", Stream.LOGS: "logs", Stream.JOBS: "job_events"}
"""Where each stream's records are."""

_JOB_COLUMNS = """
    status text not null,
    percentage integer not null,
    current_step text not null,
    completed integer not null,
    total integer not null,
    service text not null,
    error text not null,
    exit_code integer,
    stalled integer not null,
    cancel_requested integer not null"""

_FIRST = f"""
create table meta(key text primary key, value) without rowid;

create table updates(
    sequence integer primary key,
    topic text not null,
    time text not null,
    message text not null,
    metadata text
);
create index updates_topic on updates(topic, sequence);

create table logs(
    sequence integer primary key,
    service text not null,
    level text not null,
    severity integer not null,
    time text not null,
    message text not null,
    fields text
);
create index logs_service on logs(service, severity, sequence);

create table jobs(
    job_id text primary key,
    sequence integer not null,{_JOB_COLUMNS},
    created_at text not null,
    updated_at text not null,
    reported_at text not null,
    cancel_reason text not null,
    heartbeat real not null
) without rowid;
create index jobs_sequence on jobs(sequence);
create index jobs_status on jobs(status, sequence);

create table job_events(
    sequence integer primary key,
    job_id text not null,
    time text not null,{_JOB_COLUMNS},
    created_at text not null
);
create index job_events_job on job_events(job_id, sequence);

create table dedupe(
    stream text not null,
    producer text not null,
    request integer not null,
    answer text not null,
    time text not null,
    primary key(stream, producer, request)
) without rowid;
create index dedupe_time on dedupe(time);

create table marks(
    stream text not null,
    sequence integer not null,
    time text not null,
    primary key(stream, sequence)
) without rowid;
create index marks_time on marks(stream, time);
"""

_LEVELS = """
create table log_levels(
    severity integer not null,
    sequence integer not null,
    primary key(severity, sequence)
) without rowid;
insert or replace into meta select 'levels.from', ifnull(max(sequence), 0) + 1 from logs;
"""
# Where the lines of each level are, kept from the first line on that is written to the store from
# now on; the lines of before are added in small steps, while the store is in use (levels.py).

_RUNS = """
alter table dedupe add column last integer;
"""
# A row may stand for all requests from `request` to `last`: of as many records each, stored one
# after the other from the answer's first sequence on. NULL: for the one.

_TRACES = """
alter table jobs add column traceparent text not null default '';
alter table job_events add column traceparent text not null default '';
"""
# Where the report came from that made this state, or the last one before it that said so.

MIGRATIONS = (_FIRST, _LEVELS, _RUNS, _TRACES)
"""The script at index n brings a store of version n to n + 1. Never edited, only added to."""

VERSION = len(MIGRATIONS)

_PAGE = 4096
_WAL_LIMIT = 64 * 1024 * 1024
_HINTS = {
    sqlite3.SQLITE_FULL: ("the disk is full: nothing was stored", "free some space and repeat"),
    sqlite3.SQLITE_IOERR: ("the disk failed: nothing was stored", "check the disk and its space"),
    sqlite3.SQLITE_READONLY: ("the store is read-only", "check the permissions of its file"),
    sqlite3.SQLITE_BUSY: (
        "another program is writing to the store",
        "close the SQLite tool that has it open",
    ),
    sqlite3.SQLITE_CORRUPT: ("the store is damaged", "restore it from a copy"),
}


def store_error(error: sqlite3.Error) -> StoreError:
    """One line for a failure of an open store."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    message, hint = _HINTS.get(code, (f"the store failed: {error}", ""))
    return StoreError(message, hint=hint)


def open_store(path: str, options: JournalOptions) -> sqlite3.Connection:
    """Open, and create or migrate where needed, the store's one connection that writes.

    It alone makes checkpoints: several connections that do may corrupt the file in SQLite
    versions before 3.51.3. Raises StoreError.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    except sqlite3.Error as error:
        raise _cannot_open(path, error) from None
    try:
        _prepare(connection, path, options)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_open(path, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str, options: JournalOptions) -> None:
    execute = connection.execute
    (application,) = execute("pragma application_id").fetchone()
    (version,) = execute("pragma user_version").fetchone()
    (tables,) = execute("select count(*) from sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreError(
            f"{path} is an SQLite database but not a streamkit store",
            hint="give another path; to query this file use --database NAME=PATH",
        )
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer streamkit (store version {version}, this one knows"
            f" {VERSION})",
            hint="upgrade streamkit, or give another path",
        )
    if not tables:
        execute(f"pragma page_size = {_PAGE}")
        execute("pragma auto_vacuum = incremental")  # works only before the first table
    (mode,) = execute("pragma journal_mode = wal").fetchone()
    if mode != "wal":
        raise StoreError(
            f"{path} cannot be used safely: its file system has no shared memory",
            hint="put the store on a local disk",
        )
    execute("pragma synchronous = full")
    execute(f"pragma wal_autocheckpoint = {_checkpoint_pages(options)}")
    execute(f"pragma journal_size_limit = {_WAL_LIMIT}")
    execute("pragma foreign_keys = off")
    for script in MIGRATIONS[version:]:
        version += 1
        # executescript commits what is open first, so the transaction is part of the script.
        connection.executescript(
            f"begin immediate; {script}; pragma user_version = {version};"
            f" pragma application_id = {APPLICATION_ID}; commit;"
        )
    _begin_life(connection, options)


def _begin_life(connection: sqlite3.Connection, options: JournalOptions) -> None:
    """Give a new store its epoch, and one that may have lost its end a new one.

    At durability "normal" the death of the machine can undo the last commits. Their sequences
    are then given again, to other records, and a position of before would miss these without
    anybody noticing; so it must not be valid any more.
    """
    execute = connection.execute
    known = dict(execute("select key, value from meta").fetchall())
    boot = _boot()
    undone = (
        known.get("open") == 1 and known.get("durability") == "normal" and known.get("boot") != boot
    )
    if "epoch" not in known or undone:
        known["epoch"] = new_epoch()
    life = {"epoch": known["epoch"], "open": 1, "durability": options.durability, "boot": boot}
    # Synchronous is still full: that the store is open must outlive what is written after it.
    execute("begin immediate")
    connection.executemany("insert or replace into meta values(?, ?)", life.items())
    execute("commit")
    execute(f"pragma synchronous = {options.durability}")


def end_life(connection: sqlite3.Connection) -> None:
    """Note that the store was closed and not left, and close it."""
    with suppress(sqlite3.Error):  # a full disk: the next start takes the careful way
        connection.execute("update meta set value = 0 where key = 'open'")
    connection.close()


def _boot() -> str:
    """Names this run of the machine, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _checkpoint_pages(options: JournalOptions) -> int:
    """A sixteenth of a small store, 16 MiB of a large one."""
    most = options.retention.max_bytes
    return 4000 if not most else max(64, min(4000, most // _PAGE // 16))


def _cannot_open(path: str, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is not an SQLite database", hint="give another path")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreError(
            f"{path} cannot be opened for writing",
            hint="check the permissions of the file and of its directory",
        )
    told = store_error(error)
    return StoreError(f"{path}: {told.message}", hint=told.hint)
