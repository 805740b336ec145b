"""The log in NATS JetStream: what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.errors import StoreError
from streamkit.journal import Journal, ProducerId, open_journal
from streamkit.journal.replicated.opening import log_at
from streamkit.testing.journal.support import following, stored, texts, topics, updates
from tests.brokers import Brokers, running_brokers

_NUMBERS = count()

Join = Callable[..., Awaitable[Journal]]


@pytest.fixture
def name() -> str:
    return f"replicated{next(_NUMBERS)}"


@pytest.fixture
async def join(name: str, tmp_path: Path) -> AsyncIterator[Join]:
    """Starts a server on the log of this test at some brokers; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def one(brokers: Brokers, folder: str, options: str = "") -> Journal:
            url = brokers.url(name, options)
            journal = await open_journal(url, JournalOptions(), data=tmp_path / folder)
            return await stack.enter_async_context(journal)

        yield one


async def test_two_servers_have_the_same(join: Join, nats: Brokers) -> None:
    a, b = await join(nats, "a"), await join(nats, "b")
    async with following(b, topics()) as reader:
        await asyncio.gather(*(a.append_updates(updates(f"{n}")) for n in range(100)))
        await reader.until(100)
    assert texts(await stored(b, topics())) == texts(await stored(a, topics()))


async def test_a_broker_that_dies_loses_nothing_and_an_older_copy_of_it_is_refused(
    join: Join, tmp_path: Path
) -> None:
    with running_brokers() as brokers:
        (broker,) = brokers.servers
        a = await join(brokers, "a")
        for n in range(5):
            await a.append_updates(updates(f"{n}"))
        broker.kill()
        waiting = asyncio.ensure_future(a.append_updates(updates("5"), ProducerId("p", 1)))
        shutil.copytree(broker.folder / "store", tmp_path / "older")
        broker.start()
        assert (await waiting).first == 6
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        a.on_lost = lambda error: lost.set_result(error.message)
        broker.kill()
        shutil.rmtree(broker.folder / "store")
        shutil.copytree(tmp_path / "older", broker.folder / "store")
        broker.start()
        assert " went " in await lost  # back, or another way, when somebody has written to it since
        with pytest.raises(StoreError, match=" went "):
            await a.append_updates(updates("new"))
        await a.close()
        with pytest.raises(StoreError, match=" went "):
            await join(brokers, "a")


async def test_snapshots_come_back_as_they_were_given(nats: Brokers, name: str) -> None:
    from streamkit.journal.replicated.log import Snapshot

    log = log_at(nats.url(name))
    await log.open()
    assert await log.snapshot() is None

    async def parts(number: int) -> AsyncIterator[bytes]:
        for n in range(number):
            yield b"%d" % n * 100_000

    for place in (1, 2):
        given = Snapshot(place=place, size=5, digest=f"{place}", name=f"{place}")
        await log.put_snapshot(given, parts(place + 2))
        found = await log.snapshot()
        assert found is not None and (found.place, found.digest) == (place, f"{place}")
        assert [part async for part in log.get_snapshot(found)] == [
            part async for part in parts(place + 2)
        ]
    await log.close()


async def test_streams_and_servers_that_would_lose_what_they_acknowledged_are_refused(
    nats: Brokers, name: str, tmp_path: Path
) -> None:
    import nats as client

    async def refused(url: str, match: str) -> None:
        with pytest.raises(StoreError, match=match) as told:
            await open_journal(url, data=tmp_path)
        assert "\n" not in told.value.message

    await refused(nats.url(name, "&replicas=3"), "replicas")
    connection = await client.connect(f"nats://127.0.0.1:{nats.servers[0].port}")
    stream = connection.jetstream()
    await stream.add_stream(name=f"{name}a", subjects=[f"sk.{name}a"])
    await refused(nats.url(f"{name}a"), "no log of streamkit")
    await stream.add_stream(name=f"{name}b", subjects=["other"])
    await refused(nats.url(f"{name}b"), "no log of streamkit")
    await connection.close()
    with running_brokers(sync="sync_interval: 2m") as lazy:
        await refused(lazy.url(name), "before it syncs")
        await refused(
            f"nats://127.0.0.1:{lazy.servers[0].port}/x?monitor=1", "no NATS server tells"
        )
        async with await open_journal(lazy.url(name, "&sync=lazy"), data=tmp_path / "lazy"):
            pass
    with running_brokers(payload="") as small:
        await refused(small.url(name), "max_payload: |takes messages of")
    with running_brokers(jetstream=False) as off:
        await refused(off.url(name), "JetStream is off")
        await refused(off.url(name, "&sync=lazy"), "nobody answers for JetStream")
    await refused("nats://127.0.0.1:1/x", "does not answer")


async def test_a_server_of_before_is_refused(
    nats: Brokers, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.journal.replicated.nats._OLDEST", (99, 0))
    with pytest.raises(StoreError, match="or later"):
        await open_journal(nats.url(name), data=tmp_path)
