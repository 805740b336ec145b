"""The log in PostgreSQL: what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.errors import StoreError
from streamkit.journal import Journal, ProducerId, open_journal
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.journal.replicated.log import Snapshot
from streamkit.journal.replicated.opening import log_at
from streamkit.testing.journal.support import following, stored, texts, topics, updates
from tests.database.engines import Postgres

_NUMBERS = count()

Join = Callable[[str], Awaitable[Journal]]


@pytest.fixture
def name() -> str:
    return f"replicated{next(_NUMBERS)}"


@pytest.fixture
async def join(postgres: Postgres, name: str, tmp_path: Path) -> AsyncIterator[Join]:
    """Starts a server of a name on the log of this test; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def one(folder: str) -> Journal:
            url = f"{postgres.superuser_url}&log={name}"
            journal = await open_journal(url, JournalOptions(), data=tmp_path / folder)
            return await stack.enter_async_context(journal)

        yield one


async def test_two_servers_have_the_same(join: Join) -> None:
    a, b = await join("a"), await join("b")
    async with following(b, topics()) as reader:
        await asyncio.gather(*(a.append_updates(updates(f"{n}")) for n in range(100)))
        await reader.until(100)
    assert texts(await stored(b, topics())) == texts(await stored(a, topics()))


async def test_connections_that_break_lose_nothing_and_store_nothing_twice(
    join: Join, postgres: Postgres
) -> None:
    a, b = await join("a"), await join("b")

    async def publish(first: int) -> None:
        for n in range(first, first + 40):
            journal = (a, b)[n % 2]
            await journal.append_updates(updates(f"{n}"), ProducerId(f"p{first}", n + 1))

    async def disturb() -> None:
        for _ in range(3):
            await asyncio.to_thread(
                postgres.execute,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'streamkit'",
            )

    async with following(a, topics()) as reader, following(b, topics()) as other:
        await asyncio.gather(publish(0), publish(100), disturb())
        await reader.until(80)
        await other.until(80)
    found = texts(await stored(a, topics()))
    assert sorted(found, key=int) == [str(n) for n in (*range(40), *range(100, 140))]


async def test_a_log_that_went_back_is_refused_by_everybody(
    join: Join, postgres: Postgres, name: str
) -> None:
    a, b = await join("a"), await join("b")
    lost: list[str] = []
    a.on_lost = b.on_lost = lambda error: lost.append(error.message)
    for n in range(5):
        await a.append_updates(updates(f"{n}"))
    await b.prune()
    await a.close()
    table = f"streamkit_{name}"
    postgres.execute(
        f"delete from {table}_entries where place > 3",
        f"update {table}_head set last = 3",
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'streamkit'",
    )
    with pytest.raises(StoreError, match="went back"):
        await join("a")
    with pytest.raises(StoreError):
        await b.append_updates(updates("new"))
    assert isinstance(b, ReplicatedJournal)
    for work in (b.sweep, b.measure):  # which does not seem to be well again
        with pytest.raises(StoreError, match="went back"):
            await work()
    assert len(lost) == 1 and "went back" in lost[0]


async def test_a_log_that_went_another_way_is_refused(
    join: Join, postgres: Postgres, name: str
) -> None:
    a = await join("a")
    await a.append_updates(updates("true"))
    await a.close()
    postgres.execute(
        f"update streamkit_{name}_entries set data = data || 'x' where place ="
        f" (select last from streamkit_{name}_head)"
    )
    with pytest.raises(StoreError, match="went another way"):
        await join("a")


async def test_snapshots_come_back_as_they_were_given(postgres: Postgres, name: str) -> None:
    log = log_at(f"{postgres.superuser_url}&log={name}")
    await log.open()
    assert await log.snapshot() is None

    async def parts(number: int) -> AsyncIterator[bytes]:
        for n in range(number):
            yield b"%d" % n * 1000

    for place in (1, 2):
        given = Snapshot(place=place, size=5, digest=f"{place}", name=f"{place}")
        await log.put_snapshot(given, parts(place + 2))
        assert await log.snapshot() == given
        assert [part async for part in log.get_snapshot(given)] == [
            part async for part in parts(place + 2)
        ]
    await log.close()


async def test_a_copy_of_another_log_is_refused(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    first = await open_journal(f"{postgres.superuser_url}&log={name}", data=tmp_path)
    await first.close()
    with pytest.raises(StoreError, match="another log"):
        await open_journal(f"{postgres.superuser_url}&log={name}b", data=tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    async with await open_journal(str(own / "streamkit.db")) as journal:
        await journal.append_updates(updates("mine"))
    with pytest.raises(StoreError, match="not from this log"):
        await open_journal(f"{postgres.superuser_url}&log={name}", data=own)


async def test_a_log_that_was_made_anew_is_another_one(
    join: Join, postgres: Postgres, name: str
) -> None:
    a = await join("a")
    await a.append_updates(updates("x"))
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    a.on_lost = lambda error: lost.set_result(error.message)
    table = f"streamkit_{name}"
    postgres.execute(
        *(f"drop table {table}_{part}" for part in ("head", "entries", "snapshots", "parts")),
    )
    b = await join("b")
    postgres.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'streamkit'",
    )
    assert "is another one now" in await lost
    assert await stored(b, topics()) == []


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
async def test_a_database_that_loses_what_it_acknowledged_is_refused(
    postgres: Postgres, name: str, tmp_path: Path, setting: str
) -> None:
    with postgres.configured(setting, "off"):
        with pytest.raises(StoreError, match=f"has {setting} = off: it would lose") as told:
            await open_journal(f"{postgres.superuser_url}&log={name}", data=tmp_path)
        assert "\n" not in told.value.message


async def test_a_login_that_loses_what_it_acknowledged_is_refused(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    url = f"{postgres.superuser_url}&log={name}&options=-c%20synchronous_commit%3Doff"
    with pytest.raises(StoreError, match="synchronous_commit = off"):
        await open_journal(url, data=tmp_path)


async def test_two_logs_of_one_name_are_refused(
    join: Join, postgres: Postgres, name: str, tmp_path: Path
) -> None:
    await join("a")
    postgres.execute(
        f"create schema {name}", f"create table {name}.streamkit_{name}_head(life text)"
    )
    url = f"{postgres.superuser_url}&log={name}&options=-c%20search_path%3D{name},public"
    with pytest.raises(StoreError, match="several logs"):
        await open_journal(url, data=tmp_path / "b")


async def test_tables_that_are_no_log_are_refused(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    postgres.execute(f"create table streamkit_{name}_head(id int)")
    with pytest.raises(StoreError, match="no log of streamkit"):
        await open_journal(f"{postgres.superuser_url}&log={name}", data=tmp_path)


async def test_no_error_and_no_status_tells_a_password(
    postgres: Postgres, name: str, tmp_path: Path
) -> None:
    url = postgres.superuser_url.replace("postgres@", "postgres:s3cr%65t@") + f"&log={name}"
    async with await open_journal(url, data=tmp_path) as journal:
        shown = (await journal.status()).url
    assert "cr" not in shown.replace("description", "") and "postgres@" in shown
    away = "postgresql://postgres:s3cr%65t@127.0.0.1:1/db?password=s3cret"
    with pytest.raises(StoreError) as told:
        await open_journal(away, data=tmp_path)
    assert "s3cr" not in f"{told.value!r} {told.value.hint}" and told.value.__cause__ is None
