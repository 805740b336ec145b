"""What comes into PostgreSQL, from a real server into a real database: everything, and once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streamkit.client import AsyncClient
from streamkit.client.sink.flow import flow
from streamkit.client.sink.tables import Batch, Loss, Stage, Tables
from streamkit.config import Backoff
from streamkit.errors import PreconditionError, StoreError
from streamkit.generated.streamservice import Gap, Update
from streamkit.server import Server
from streamkit.terms import Position
from tests.cli.tools import COMMAND, PATIENCE, ServerProcess, environment, invoke
from tests.client.servers import QUICK
from tests.database.engines import Postgres

psycopg = pytest.importorskip("psycopg", reason="no psycopg here: the extra postgres")

_NUMBERS = count()
UPDATES = Stage("updates", "topics >")


class Schema:
    """One of a test's own, and what is in it."""

    def __init__(self, postgres: Postgres) -> None:
        self.url = postgres.superuser_url
        self.name = f"sink{next(_NUMBERS)}"
        self.notes: list[str] = []

    def tables(self) -> Tables:
        delays = Backoff(first=0.02, longest=0.1)
        return Tables(self.url, "the database", self.name, self.notes.append, delays)

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        async with connection:
            await connection.execute(f"set search_path to {self.name}")
            found: list[tuple[Any, ...]] = await (await connection.execute(sql)).fetchall()
        return found

    async def until(self, sql: str, found: list[tuple[Any, ...]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.select(sql) != found:
                await asyncio.sleep(0.02)


@pytest.fixture
def schema(postgres: Postgres) -> Schema:
    return Schema(postgres)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with (
        Server(journal=tmp_path / "store.db", port=0) as server,
        AsyncClient(server.address, backoff=QUICK) as client,
    ):
        yield client


@asynccontextmanager
async def flowing(
    schema: Schema, stage: Stage, open_stream: Callable[..., Any], **more: Any
) -> AsyncIterator[asyncio.Task[None]]:
    tables = schema.tables()
    await tables.open()
    task = asyncio.create_task(flow(tables, stage, open_stream, **{"new_life": False, **more}))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await tables.close()


def updates_of(client: AsyncClient) -> Callable[..., Any]:
    return lambda start, lose: client.subscribe(">", start=start, on_loss=lose)


async def test_each_kind_of_record_has_its_table(schema: Schema, client: AsyncClient) -> None:
    await client.publish("orders.eu", "nul \0 and ü", metadata={"by": "nul \0"})
    async with client.log_writer("api") as writer:
        writer.write("text", "warn", {"code": "7"})
    async with client.job("import", total=2) as job:
        await job.advance()
    epoch = (await client.status()).epoch
    logs = Stage("logs", "services *")
    jobs = Stage("job_events", "jobs *")
    async with (
        flowing(schema, UPDATES, updates_of(client)),
        flowing(
            schema, logs, lambda start, lose: client.logs(follow=True, start=start, on_loss=lose)
        ),
        flowing(schema, jobs, lambda start, lose: client.job_events(start=start, on_loss=lose)),
    ):
        await schema.until(
            "select epoch, sequence, topic, message, metadata from updates",
            [(epoch, 1, "orders.eu", "nul \ufffd and ü", {"by": "nul \ufffd"})],
        )
        await schema.until(
            "select service, level, message, fields from logs",
            [("api", "warn", "text", {"code": "7"})],
        )
        ended = "select job_id, completed, total, percentage from job_events where status = "
        await schema.until(f"{ended} 'completed'", [("import", 1, 2, 100)])
        assert await schema.select("select count(*) from job_events where created_at is null") == [
            (0,)
        ]
    assert await schema.select("select stream, sequence > 0 from positions order by 1") == [
        ("job_events", True),
        ("logs", True),
        ("updates", True),
    ]


async def test_it_goes_on_where_it_stopped(schema: Schema, client: AsyncClient) -> None:
    for first in range(0, 300, 100):
        await client.publish_many([Update("t", str(n)) for n in range(first, first + 100)])
        async with flowing(schema, UPDATES, updates_of(client)):
            await schema.until("select count(*), max(sequence) from updates", [(first + 100,) * 2])


async def test_the_database_may_go_away(schema: Schema, client: AsyncClient) -> None:
    """All connections are ended, again and again: two lines a time, and nothing twice or lost."""
    async with flowing(schema, UPDATES, updates_of(client)):
        for first in range(0, 90, 30):
            await client.publish_many([Update("t", str(n)) for n in range(first, first + 30)])
            await schema.until("select count(*) from updates", [(first + 30,)])
            await schema.select(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'streamkit sink'"
            )
    told = [note.split(" (")[0] for note in schema.notes]
    assert told[:2] == ["the database is away", "the database is back after 0s"]
    assert len(told) == 4, schema.notes


async def test_an_answer_that_was_lost_is_no_second_batch(schema: Schema) -> None:
    tables = schema.tables()
    await tables.open()
    assert await tables.begin(UPDATES) is None
    row = ("e", 1, "t", "m", "2026-01-01", None)
    batch = Batch([row], None, Position("e", 1), [Loss("e", 5, None, "why")])
    for _ in range(2):
        await tables.store(UPDATES, batch)
    assert await schema.select("select sequence from updates") == [(1,)]
    assert await schema.select("select stream, epoch, first, last, reason from gaps") == [
        ("updates", "e", 5, None, "why")
    ]
    assert await tables.begin(UPDATES) == Position("e", 1)
    await tables.close()


async def test_two_sinks_cannot_share_tables(schema: Schema) -> None:
    one, other = schema.tables(), schema.tables()
    for tables in (one, other):
        await tables.open()
        await tables.begin(UPDATES)
    row = ("e", 1, "t", "m", "2026-01-01", None)
    await one.store(UPDATES, Batch([row], None, Position("e", 1)))
    with pytest.raises(StoreError, match="another sink writes to the schema"):
        await other.store(UPDATES, Batch([row], None, Position("e", 2)))
    with pytest.raises(PreconditionError, match="took topics > before"):
        await other.begin(Stage("updates", "topics a"))
    await one.close()
    await other.close()
    await schema.select("update sink set level = 9 returning level")
    with pytest.raises(StoreError, match="level 9"):
        await one.open()
    await one.close()


async def test_a_loss_stands_in_a_table(schema: Schema) -> None:
    class Stream:
        """What retention did to a stream: records 1 to 7 are gone."""

        position = Position("e", 8)

        def __init__(self, start: Any, lose: Callable[[Gap], object]) -> None:
            self.lose = lose
            self.batches = [[Update("t", "m", sequence=8)], []]

        async def __aenter__(self) -> None:
            pass

        async def receive(self) -> list[Update]:
            self.lose(Gap(1, 7, "retention"))
            return self.batches.pop(0)

        async def close(self) -> None:
            pass

    async with flowing(schema, UPDATES, Stream) as task:
        await task
    assert await schema.select("select stream, epoch, first, last, reason from gaps") == [
        ("updates", "e", 1, 7, "retention")
    ]


async def test_another_journal_is_refused_unless_it_is_asked_for(
    schema: Schema, client: AsyncClient, tmp_path: Path
) -> None:
    await client.publish("t", "old")
    async with flowing(schema, UPDATES, updates_of(client)):
        await schema.until("select count(*) from updates", [(1,)])
    async with (
        Server(journal=tmp_path / "other.db", port=0) as server,
        AsyncClient(server.address, backoff=QUICK) as other,
    ):
        await other.publish("t", "new")
        async with flowing(schema, UPDATES, updates_of(other)) as task:
            with pytest.raises(PreconditionError, match="belongs to another journal") as refused:
                await task
            assert "--new-life" in refused.value.hint
        async with flowing(schema, UPDATES, updates_of(other), new_life=True):
            await schema.until("select message from updates order by time", [("old",), ("new",)])
    gaps = await schema.select("select epoch, first, last from gaps")
    assert gaps == [((await client.status()).epoch, 2, None)]


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path / "store.db")
    yield process
    process.stop()


async def test_a_sink_that_is_killed_loses_and_repeats_nothing(
    schema: Schema, process: ServerProcess
) -> None:
    """kill -9 while it writes, twice, then the end by SIGTERM."""
    env = environment(process.address, SINK_URL=schema.url)
    command = [*COMMAND, "sink", "$SINK_URL", "--schema", schema.name, "--streams", "updates"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=env, stderr=subprocess.PIPE)

    sink = start()
    async with AsyncClient(process.address, backoff=QUICK) as client:
        async with client.publisher() as publisher:
            for number in range(6000):
                await publisher.send("t", str(number))
                if number in (2000, 4000):
                    await publisher.flush()
                    async with asyncio.timeout(PATIENCE):
                        while not await is_there(schema, number // 2000):
                            await asyncio.sleep(0.01)
                    sink.kill()
                    assert sink.wait(PATIENCE) == -signal.SIGKILL
                    assert sink.stderr is not None
                    sink.stderr.close()
                    sink = start()
        await schema.until(
            "select count(*), count(distinct message), max(sequence) from updates", [(6000,) * 3]
        )
    sink.terminate()
    _, said = sink.communicate(timeout=PATIENCE)
    assert sink.returncode == 0, said


async def is_there(schema: Schema, least: int) -> bool:
    """Whether the sink has begun to write, beyond what it had."""
    made = f"select to_regclass('{schema.name}.updates') is not null"
    if await schema.select(made) != [(True,)]:
        return False
    [(count_now,)] = await schema.select("select count(*) from updates")
    return bool(count_now >= least)


def test_what_it_refuses_in_one_line(postgres: Postgres, process: ServerProcess) -> None:
    for url, said in (
        ("postgresql://ann:secret@localhost/x", "the password can be read"),
        ("mysql://localhost/x", "a sink is postgresql://USER@HOST/DATABASE"),
        ("$NOT_THERE", "NOT_THERE is not in the environment"),
    ):
        refused = invoke("sink", url, server=process.address)
        assert refused.returncode == 2
        assert said in refused.stderr and "secret" not in refused.stderr
    refused = invoke("sink", "postgresql://a@h/x", "--streams", "metrics", server=process.address)
    assert "--streams: 'metrics' is not a list of updates, logs, jobs" in refused.stderr
    away = {"SINK": "postgresql://ann:secret@127.0.0.1:1/x"}
    failed = invoke("sink", "$SINK", server=process.address, env=away)
    assert failed.returncode == 1
    assert failed.stderr.startswith("streamkit: postgresql://ann@127.0.0.1:1/x: ")
    assert len(failed.stderr.splitlines()) == 1 and "secret" not in failed.stderr
    reader = {"SINK": postgres.url, "PATH": os.environ["PATH"]}
    failed = invoke("sink", "$SINK", "--schema", "forbidden", server=process.address, env=reader)
    assert failed.returncode == 1 and "permission denied" in failed.stderr
