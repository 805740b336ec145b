"""A log in a PostgreSQL database: a row for each entry, and one row that orders them.

The row of `head` is locked by whoever appends, until the commit: so places are contiguous, and an
entry is never seen before one of a smaller place, which a sequence of the database would not give.
NOTIFY only wakes who waits; what is read is the table.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from streamkit.background import all_ended
from streamkit.errors import PreconditionError, StoreError
from streamkit.journal.base import new_epoch
from streamkit.journal.replicated.log import ANSWER, Log, LogEntry, LogStatus, Snapshot

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresLog"]

R = TypeVar("R")

_LEVEL = 1
"""Of the tables. A server that meets a higher one has to be replaced first."""
_AT_ONCE = 64
_POLL = 1.0
_CONNECT_SECONDS = 5
_LONGEST_PAUSE = 2.0
_LOCK = 0x736B6974

_TABLES = """
create table {name}_head(
    one boolean primary key default true check (one),
    life text not null, level int not null, last bigint not null);
create table {name}_entries(place bigint primary key, data bytea not null);
alter table {name}_entries alter data set storage external;
create table {name}_snapshots(
    name text primary key, place bigint not null, size bigint not null, digest text not null);
create table {name}_parts(name text, part int, data bytea not null, primary key(name, part));
"""

_logger = logging.getLogger("streamkit.journal")


class PostgresLog(Log):
    """The log of this name in a database; `conninfo` is libpq's, whatever it may be."""

    def __init__(self, conninfo: str, name: str, url: str) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
            raise StoreError(
                f"a log cannot be called {name!r}",
                hint="take up to 32 small letters, digits and _",
            )
        self._conninfo = conninfo
        self.name, self.url = name, url
        self._table = f"streamkit_{name}"
        self._writing = _Line(self)
        self._asking = _Line(self)
        self._reading = _Line(self)
        self._listening = _Line(self)
        self._woken = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._told = ""
        self.life = ""

    async def open(self) -> None:
        try:
            import psycopg  # noqa: F401  # only to see that it is there
        except ImportError:
            raise PreconditionError(
                "a store at postgresql:// needs psycopg: pip install 'streamkit-grpc[postgres]'"
            ) from None
        await self._asking.use(self._check_durability)
        self.life = await self._asking.use(self._make)
        self._listener = asyncio.create_task(self._listen(), name="listening to the log")

    async def append(self, data: bytes) -> None:
        name = self._table

        async def insert(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(
                f"with next as (update {name}_head set last = last + 1 returning last),"
                f" put as (insert into {name}_entries select last, %b from next returning place)"
                f" select pg_notify('{name}', '') from put",
                (data,),
            )

        await self._writing.use(insert)

    async def tail(self, after: int) -> AsyncGenerator[Sequence[LogEntry], None]:
        line = self._reading
        place = after
        fresh = False  # whether this connection's log is known to be the one that was read before
        while True:
            self._woken.clear()
            try:
                if line.begun_anew() or not fresh:
                    await self._check(line, place)
                    fresh = True
                    found = await line.use(self._entries_from(max(place, 1)))
                else:
                    found = await line.use(self._entries_from(place + 1))
            except _Away as error:
                fresh = False
                await self._pause(error)
                continue
            self._told = ""
            if found:
                place = found[-1].place
                yield found
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._woken.wait()

    async def status(self, within: float = ANSWER) -> LogStatus:
        async def ask(connection: psycopg.AsyncConnection[Any]) -> LogStatus:
            cursor = await connection.execute(
                f"select coalesce((select min(place) from {self._table}_entries), last + 1), last,"
                f" pg_total_relation_size('{self._table}_entries') from {self._table}_head"
            )
            row = await cursor.fetchone()
            if row is None:
                raise StoreError(f"the log {self.name} has lost its head")
            return LogStatus(*row)

        async with _in_time(within):
            return await self._asking.use(ask)

    async def trim(self, before: int) -> None:
        async def delete(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(
                f"delete from {self._table}_entries where place < %s", (before,)
            )

        await self._asking.use(delete)

    async def snapshot(self) -> Snapshot | None:
        async def ask(connection: psycopg.AsyncConnection[Any]) -> Snapshot | None:
            cursor = await connection.execute(
                f"select place, size, digest, name from {self._table}_snapshots"
                " order by place desc limit 1"
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            place, size, digest, name = row
            return Snapshot(place=place, size=size, digest=digest, name=name)

        return await self._asking.use(ask)

    async def put_snapshot(self, snapshot: Snapshot, parts: AsyncIterator[bytes]) -> None:
        table = self._table

        async def put(connection: psycopg.AsyncConnection[Any]) -> None:
            async with connection.transaction():
                number = 0
                async for part in parts:
                    await connection.execute(
                        f"insert into {table}_parts values(%s, %s, %b)",
                        (snapshot.name, number, part),
                    )
                    number += 1
                await connection.execute(f"delete from {table}_snapshots")
                await connection.execute(
                    f"insert into {table}_snapshots values(%s, %s, %s, %s)",
                    (snapshot.name, snapshot.place, snapshot.size, snapshot.digest),
                )
                await connection.execute(
                    f"delete from {table}_parts where name <> %s", (snapshot.name,)
                )

        line = _Line(self)  # of its own: it takes a while, and others ask meanwhile
        try:
            await line.use(put)
        finally:
            await line.close()

    async def get_snapshot(self, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
        number = 0
        while True:
            part = await self._asking.use(self._part(snapshot.name, number))
            if part is None:
                return
            yield part
            number += 1

    async def close(self) -> None:
        if self._listener is not None:
            await all_ended([self._listener])
        for line in (self._writing, self._asking, self._reading, self._listening):
            await line.close()

    # ---- making and checking ----

    async def _check_durability(self, connection: psycopg.AsyncConnection[Any]) -> None:
        for setting in ("fsync", "synchronous_commit"):
            cursor = await connection.execute(f"show {setting}")
            row = await cursor.fetchone()
            if row is not None and row[0] == "off":
                raise StoreError(
                    f"the PostgreSQL of {self.url} has {setting} = off: it would lose what it"
                    " acknowledged",
                    hint=f"set {setting} = on there",
                )

    async def _make(self, connection: psycopg.AsyncConnection[Any]) -> str:
        """The life of the log, which is made if it is not there."""
        name = self._table
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor = await connection.execute(
                "select nspname from pg_class c join pg_namespace n on n.oid = relnamespace"
                " where relname = %s and nspname = any (current_schemas(false))",
                (f"{name}_head",),
            )
            schemas = sorted(row[0] for row in await cursor.fetchall())
            if len(schemas) > 1:
                raise StoreError(
                    f"there are several logs {self.name} in {self.url}: in the schemas"
                    f" {', '.join(schemas)}",
                    hint="name another one, ?log=NAME, or set the search_path of this login",
                )
            if not schemas:
                for statement in _TABLES.format(name=name).split(";"):
                    if statement.strip():
                        await connection.execute(statement)
                await connection.execute(
                    f"insert into {name}_head values(true, %s, %s, 0)", (new_epoch(), _LEVEL)
                )
            return (await self._head(connection))[0]

    async def _head(self, connection: psycopg.AsyncConnection[Any]) -> tuple[str, int]:
        import psycopg

        try:
            cursor = await connection.execute(f"select life, level, last from {self._table}_head")
            life, level, last = await cursor.fetchone() or (None, 0, 0)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            life, level, last = None, 0, 0
        if life is None:
            raise StoreError(
                f"the tables {self._table}_… of {self.url} are no log of streamkit",
                hint="name another one: ?log=NAME",
            )
        if level > _LEVEL:
            raise StoreError(
                f"the log {self.name} is of a newer streamkit (level {level}, this one knows"
                f" {_LEVEL})",
                hint="upgrade this server",
            )
        return life, last

    async def _check(self, line: _Line, place: int) -> None:
        """Raise StoreError unless what stands behind a connection is the log that was read."""
        life, last = await line.use(self._head)
        if life != self.life:
            raise StoreError(
                f"the log {self.name} is another one now (life {life}, not {self.life})",
                hint="give this server an empty --data if that is right",
            )
        if last < place:
            raise StoreError(
                f"the log {self.name} went back: it ends at {last}, and this server has applied"
                f" {place}",
                hint="an older copy of the database was put back; see growing.md",
            )
        first = (await self._first(line)) if place else 0
        if place and first > place:
            raise StoreError(
                f"the log {self.name} begins at {first} now, and this server has only {place}",
                hint="start it again: it loads a snapshot",
            )

    async def _first(self, line: _Line) -> int:
        async def ask(connection: psycopg.AsyncConnection[Any]) -> int:
            cursor = await connection.execute(f"select min(place) from {self._table}_entries")
            row = await cursor.fetchone()
            return 0 if row is None or row[0] is None else int(row[0])

        return await line.use(ask)

    # ---- reading ----

    def _entries_from(
        self, place: int
    ) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[list[LogEntry]]]:
        async def select(connection: psycopg.AsyncConnection[Any]) -> list[LogEntry]:
            cursor = await connection.cursor(binary=True).execute(
                f"select place, data from {self._table}_entries where place >= %s"
                " order by place limit %s",
                (place, _AT_ONCE),
            )
            return [LogEntry(*row) for row in await cursor.fetchall()]

        return select

    def _part(
        self, name: str, number: int
    ) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[bytes | None]]:
        async def select(connection: psycopg.AsyncConnection[Any]) -> bytes | None:
            cursor = await connection.cursor(binary=True).execute(
                f"select data from {self._table}_parts where name = %s and part = %s",
                (name, number),
            )
            row = await cursor.fetchone()
            return None if row is None else bytes(row[0])

        return select

    async def _listen(self) -> None:
        import psycopg

        while True:
            try:
                connection = await self._listening.connected()
                await connection.execute(f"listen {self._table}")
                self._woken.set()
                async for _ in connection.notifies():
                    self._woken.set()
            except (_Away, psycopg.Error):
                self._woken.set()  # who waits has a connection that has ended as well
                await asyncio.sleep(_POLL)

    async def _pause(self, error: StoreError) -> None:
        if error.message != self._told:
            self._told = error.message
            _logger.warning("%s; trying again", error.message)
        await asyncio.sleep(_LONGEST_PAUSE / 4)

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection of its own. Raises StoreError, never with a password in it."""
        import psycopg

        try:
            return await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="streamkit",
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
            )
        except psycopg.Error as error:
            raise _away(self.url, error) from None


class _Away(StoreError):
    """The database does not answer now; it may again."""


class _Line:
    """One connection, made when it is needed, and anew after it broke; one use at a time."""

    def __init__(self, log: PostgresLog) -> None:
        self._log = log
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()

    def begun_anew(self) -> bool:
        """Whether the next use makes a connection first."""
        return self._connection is None or self._connection.closed

    async def connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await self._log.connect()
        return self._connection

    async def use(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[R]]) -> R:
        """Raises StoreError. A use that did not end well ends the connection, whose state nobody
        knows then."""
        import psycopg

        async with self._turn:
            connection = await self.connected()
            try:
                return await work(connection)
            except psycopg.Error as error:
                await connection.close()
                raise _away(self._log.url, error) from None
            except BaseException:
                await connection.close()
                raise

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def _away(url: str, error: psycopg.Error) -> _Away:
    text = str(error).strip().splitlines()
    return _Away(f"the log at {url} failed: {text[0] if text else type(error).__name__}")


def _in_time(seconds: float) -> _Answer:
    return _Answer(seconds)


class _Answer:
    """Turns a silence of the database into an error."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError:
            raise _Away("the log does not answer") from None
