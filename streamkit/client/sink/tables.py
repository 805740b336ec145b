"""The tables of a sink in PostgreSQL: what they are, and batches into them, each exactly once.

Where a stream has got to stands in the same database, and moves in the transaction that brings the
records. So a batch of which nobody knows whether it was stored is tried again and found done.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from streamkit.client.retry import backoff
from streamkit.config import Backoff
from streamkit.errors import InvalidArgumentError, PreconditionError, StoreError
from streamkit.generated.streamservice import JobProgress, LogEntry, Update
from streamkit.terms import Position

if TYPE_CHECKING:
    import psycopg

__all__ = ["COLUMNS", "Batch", "Loss", "Stage", "Tables", "row_of"]

_LEVEL = 1
"""Of the tables. A sink that meets a higher one has to be replaced first."""
_LOCK = 0x736B736B
_CONNECT_SECONDS = 5
_LONGEST = 10.0

COLUMNS = {
    "updates": ("epoch", "sequence", "topic", "message", "time", "metadata"),
    "logs": ("epoch", "sequence", "service", "level", "message", "time", "fields"),
    "job_events": (
        *("epoch", "sequence", "job_id", "status", "percentage", "current_step", "completed"),
        *("total", "service", "error", "exit_code", "stalled", "cancel_requested", "time"),
        "created_at",
    ),
}
"""Of each table of records, in the order of `row_of`."""

_TABLES = """
create table {schema}.sink(level int not null);
insert into {schema}.sink values({level});
create table {schema}.updates(
    epoch text, sequence bigint, topic text not null, message text not null,
    time timestamptz not null, metadata jsonb, primary key(epoch, sequence));
create index on {schema}.updates(topic, sequence);
create table {schema}.logs(
    epoch text, sequence bigint, service text not null, level text not null,
    message text not null, time timestamptz not null, fields jsonb, primary key(epoch, sequence));
create index on {schema}.logs(service, sequence);
create table {schema}.job_events(
    epoch text, sequence bigint, job_id text not null, status text not null,
    percentage int not null, current_step text not null, completed bigint not null,
    total bigint not null, service text not null, error text not null, exit_code int,
    stalled boolean not null, cancel_requested boolean not null, time timestamptz not null,
    created_at timestamptz, primary key(epoch, sequence));
create index on {schema}.job_events(job_id, sequence);
create table {schema}.positions(
    stream text primary key, wanted text not null, epoch text not null, sequence bigint not null,
    moved_at timestamptz not null default now());
create table {schema}.gaps(
    stream text not null, epoch text not null, first bigint not null, last bigint,
    reason text not null, noticed_at timestamptz not null default now())
"""


class Loss(NamedTuple):
    """What never came: `last` is None where nobody knows how much it was."""

    epoch: str
    first: int
    last: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stream of the sink is: its table, and what was asked for."""

    table: str
    wanted: str


@dataclass(slots=True)
class Batch:
    """Records that are stored together, where they end, and what was lost before them."""

    rows: list[tuple[Any, ...]]
    before: Position | None
    after: Position
    gaps: Sequence[Loss] = ()


class Tables:
    """One schema of a database. `conninfo` is libpq's, `shown` the same as it may be shown.

    `note` is told once when the database is away and once when it is back. StoreError for what
    trying again does not help.
    """

    def __init__(
        self,
        conninfo: str,
        shown: str,
        schema: str,
        note: Callable[[str], None],
        delays: Backoff | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise InvalidArgumentError(
                f"{schema!r} is no name for a schema", hint="take small letters, digits and _"
            )
        self._conninfo = conninfo
        self._shown = shown
        self._schema = schema
        self._note = note
        self._delays = delays or Backoff(longest=_LONGEST)
        self._connections: dict[str, psycopg.AsyncConnection[Any]] = {}
        self._away_since: float | None = None

    async def open(self) -> None:
        """Make the tables that are not there. PreconditionError without psycopg."""
        try:
            import psycopg
        except ImportError:
            raise PreconditionError(
                "a sink at postgresql:// needs psycopg: pip install 'streamkit-grpc[postgres]'"
            ) from None
        try:
            connection = await self._connected("")
            await self._make(connection)
        except psycopg.Error as error:
            raise self._failed(error) from None

    async def begin(self, stage: Stage) -> Position | None:
        """The place after which a stream is to go on; None: it has taken nothing yet."""
        import psycopg

        table = f"{self._schema}.positions"
        try:
            connection = await self._connected("")
            await connection.execute(
                f"insert into {table} values(%s, %s, '', 0) on conflict do nothing",
                (stage.table, stage.wanted),
            )
            cursor = await connection.execute(
                f"select wanted, epoch, sequence from {table} where stream = %s", (stage.table,)
            )
            wanted, epoch, sequence = await cursor.fetchone() or (stage.wanted, "", 0)
        except psycopg.Error as error:
            raise self._failed(error) from None
        if wanted != stage.wanted:
            raise PreconditionError(
                f"the sink took {wanted} before, and would miss records of {stage.wanted} now",
                hint="ask for the same, or give it another --schema",
            )
        return Position(epoch, sequence) if epoch else None

    async def store(self, stage: Stage, batch: Batch) -> None:
        """Bring a batch, once, however often the database goes away meanwhile."""
        import psycopg

        delays = backoff(self._delays)
        while True:
            try:
                connection = await self._connected(stage.table)
                async with connection.transaction():
                    await self._bring(connection, stage, batch)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._away(error)
                await self._drop(stage.table)
                await asyncio.sleep(next(delays))
            except psycopg.Error as error:
                raise self._failed(error) from None
            else:
                self._back()
                return

    async def close(self) -> None:
        """Let go of the database. A transaction that is under way is undone by it."""
        for name in list(self._connections):
            await self._drop(name)

    # ---- parts ----

    async def _bring(
        self, connection: psycopg.AsyncConnection[Any], stage: Stage, batch: Batch
    ) -> None:
        schema = self._schema
        cursor = await connection.execute(
            f"select epoch, sequence from {schema}.positions where stream = %s for update",
            (stage.table,),
        )
        found = await cursor.fetchone()
        if found == tuple(batch.after):
            return  # the answer to an earlier attempt was lost, and nothing else
        if found != tuple(batch.before or ("", 0)):
            raise StoreError(
                f"another sink writes to the schema {schema} of {self._shown}",
                hint="stop it, or give this one another --schema",
            )
        columns = ", ".join(COLUMNS[stage.table])
        async with (
            connection.cursor() as copying,
            copying.copy(f"copy {schema}.{stage.table}({columns}) from stdin") as copy,
        ):
            for row in batch.rows:
                await copy.write_row(row)
        for gap in batch.gaps:
            await connection.execute(
                f"insert into {schema}.gaps(stream, epoch, first, last, reason)"
                " values(%s, %s, %s, %s, %s)",
                (stage.table, gap.epoch, gap.first, gap.last, _text(gap.reason)),
            )
        await connection.execute(
            f"update {schema}.positions set epoch = %s, sequence = %s, moved_at = now()"
            " where stream = %s",
            (*batch.after, stage.table),
        )

    async def _make(self, connection: psycopg.AsyncConnection[Any]) -> None:
        schema = self._schema
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor = await connection.execute(
                "select exists(select from pg_namespace where nspname = %s),"
                " exists(select from pg_tables where schemaname = %s and tablename = 'sink')",
                (schema, schema),
            )
            there, made = await cursor.fetchone() or (False, False)
            if not there:
                await connection.execute(f"create schema {schema}")
            if not made:
                for statement in _TABLES.format(schema=schema, level=_LEVEL).split(";"):
                    await connection.execute(statement.encode())
                return
            cursor = await connection.execute(f"select level from {schema}.sink")
            (level,) = await cursor.fetchone() or (0,)
            if level != _LEVEL:
                raise StoreError(
                    f"the tables in the schema {schema} are of another streamkit (level {level},"
                    f" this one knows {_LEVEL})",
                    hint="upgrade this one, or give it another --schema",
                )

    async def _connected(self, name: str) -> psycopg.AsyncConnection[Any]:
        """The connection of this name: each stream has its own."""
        import psycopg

        connection = self._connections.get(name)
        if connection is None or connection.closed:
            connection = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="streamkit sink",
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
            )
            self._connections[name] = connection
        return connection

    async def _drop(self, name: str) -> None:
        connection = self._connections.pop(name, None)
        if connection is not None:
            await connection.close()

    def _failed(self, error: psycopg.Error) -> StoreError:
        return StoreError(f"{self._shown}: {_line_of(error)}")

    def _away(self, error: psycopg.Error) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._note(f"{self._shown} is away ({_line_of(error)}); trying again")

    def _back(self) -> None:
        if self._away_since is not None:
            self._note(f"{self._shown} is back after {time.monotonic() - self._away_since:.0f}s")
            self._away_since = None


def row_of(record: Update | LogEntry | JobProgress, epoch: str) -> tuple[Any, ...]:
    """A record as its row. PostgreSQL has no text with a NUL in it: that becomes U+FFFD."""
    match record:
        case Update():
            topic, message = _text(record.topic), _text(record.message)
            metadata = _json(record.metadata)
            return epoch, record.sequence, topic, message, record.timestamp, metadata
        case LogEntry():
            service, message, fields = _text(record.service), _text(record.message), record.fields
            place = epoch, record.sequence
            return *place, service, record.level, message, record.timestamp, _json(fields)
    created = record.created_at if record.created_at > _UNSET else None
    return (
        *(epoch, record.sequence, _text(record.job_id), record.status, record.percentage),
        *(_text(record.current_step), record.completed, record.total, _text(record.service)),
        *(_text(record.error), record.exit_code, record.stalled, record.cancel_requested),
        *(record.updated_at, created),
    )


_UNSET = datetime(1970, 1, 1, tzinfo=UTC)


def _text(text: str) -> str:
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _json(values: dict[str, str]) -> str | None:
    if not values:
        return None
    return json.dumps({_text(key): _text(text) for key, text in values.items()})


def _line_of(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
