"""Long proofs of the replicated journal, with their figures."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats as client
import pytest

from streamkit.config import JournalOptions, Retention
from streamkit.errors import StoreError
from streamkit.generated.streamservice import Update
from streamkit.journal import ProducerId, Stream, open_journal
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.testing.journal.support import stored, texts, topics, updates
from tests.brokers import Brokers, running_brokers
from tests.database.engines import Postgres
from tests.journal.replicated.logs import dump, insisted

OPTIONS = JournalOptions(retention=Retention(max_age=0.0, max_bytes=0))

Join = Callable[[str, str], Awaitable[ReplicatedJournal]]


@pytest.fixture
async def join(tmp_path: Path) -> AsyncIterator[Join]:
    async with AsyncExitStack() as stack:

        async def one(url: str, folder: str) -> ReplicatedJournal:
            journal = await open_journal(url, OPTIONS, data=tmp_path / folder)
            assert isinstance(journal, ReplicatedJournal)
            return await stack.enter_async_context(journal)

        yield one


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["postgres", "nats"])
async def test_an_empty_server_joins_at_a_million_records(
    join: Join, tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    found: Brokers | Postgres = request.getfixturevalue(engine)
    url = (
        found.url("million") if isinstance(found, Brokers) else f"{found.superuser_url}&log=million"
    )
    a = await join(url, "a")
    began = time.perf_counter()
    numbers = iter(range(2_000))

    async def write() -> None:
        for number in numbers:
            some = [
                Update(topic=f"t.{n % 50}", message=f"{number}:{n} {'x' * 80}") for n in range(500)
            ]
            await a.append_updates(some, ProducerId("p", number + 1))

    await asyncio.gather(*(write() for _ in range(8)))
    wrote = time.perf_counter() - began
    await a.keep(early=True)
    kept = time.perf_counter() - began - wrote
    for number in range(20):
        await a.append_updates(updates(f"after {number}"))
    began = time.perf_counter()
    b = await join(url, "b")
    joined = time.perf_counter() - began
    print(
        f"\n{engine}: 1,000,000 records in {wrote:.1f} s ({1e6 / wrote:,.0f}/s), snapshot"
        f" {kept:.1f} s, an empty server joined in {joined:.1f} s"
    )
    assert b.bounds(Stream.UPDATES).newest == 1_000_020
    await b.append_updates(updates("end"))
    for journal in (a, b):
        await journal.until_applied((await journal.log.status()).last)
    assert joined < 20
    assert dump(tmp_path / "a") == dump(tmp_path / "b")


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_repeat_after_ten_minutes_gets_the_first_answer(tmp_path: Path) -> None:
    """On another server, after every server and every broker was started again."""
    with running_brokers(3) as brokers:
        url = brokers.url("repeats")
        async with await open_journal(url, OPTIONS, data=tmp_path / "a") as a:
            first = [
                await a.append_updates(updates("x", "y"), ProducerId("p", number))
                for number in range(1, 51)
            ]
        _kill_all(brokers)
        await asyncio.sleep(600)
        _start_all(brokers)
        async with await open_journal(url, OPTIONS, data=tmp_path / "b") as b:
            for number in range(1, 51):
                again = await b.append_updates(updates("x", "y"), ProducerId("p", number))
                assert again == first[number - 1]
            assert len(await stored(b, topics())) == 100
        print("\n50 requests of 2, repeated on an empty server after ten minutes: 100 are stored")


@pytest.mark.soak
@pytest.mark.parametrize("back", [1, 2, 3])
async def test_an_older_copy_of_some_brokers_is_mended_or_refused_by_all(
    join: Join, tmp_path: Path, back: int
) -> None:
    with running_brokers(3) as brokers:
        url = brokers.url("older")
        a, b = await join(url, "a"), await join(url, "b")
        lost: list[StoreError] = []
        wanted = [f"{number}" for number in range(40)]
        for number in range(20):
            await a.append_updates(updates(wanted[number]))
        _kill_all(brokers)
        for broker in brokers.servers[:back]:
            shutil.copytree(broker.folder / "store", tmp_path / broker.name)
        _start_all(brokers)
        for number in range(20, 40):
            await insisted(a, updates(wanted[number]), ProducerId("p", number), lost)
        await b.until_applied((await a.log.status()).last)
        a.on_lost = b.on_lost = lost.append
        _kill_all(brokers)
        for broker in brokers.servers[:back]:
            shutil.rmtree(broker.folder / "store")
            shutil.copytree(tmp_path / broker.name, broker.folder / "store")
        _start_all(brokers)
        async with asyncio.timeout(90):
            while len(lost) < 2:
                try:
                    await a.append_updates(updates("new"), ProducerId("p", 100))
                    await b.until_applied((await a.log.status()).last)
                    break
                except StoreError:
                    await asyncio.sleep(0.5)
        told = [texts(await stored(journal, topics())) for journal in (a, b)]
        print(f"\n{back} of three put back: {lost or 'nothing is missing'}")
        if lost:
            assert told == [wanted, wanted] and all(" went " in error.message for error in lost)
            for folder in "ab":
                with pytest.raises(StoreError, match=r" went |in use"):
                    await join(url, folder)
        else:
            assert told == [[*wanted, "new"]] * 2


def _kill_all(brokers: Brokers) -> None:
    for broker in brokers.servers:
        broker.kill()


def _start_all(brokers: Brokers) -> None:
    for broker in brokers.servers:
        broker.start()


@pytest.mark.soak
async def test_the_leader_of_three_brokers_is_killed_ten_times(
    join: Join, nats_cluster: Brokers
) -> None:
    url = nats_cluster.url("leaders")
    a, b = await join(url, "a"), await join(url, "b")
    lost: list[StoreError] = []
    a.on_lost = b.on_lost = lost.append
    longest = 0.0
    acknowledged: dict[int, list[int]] = {n: [] for n in range(8)}
    total, ended = 200_000 // 8, asyncio.Event()
    counted = 0

    async def produce(n: int) -> None:
        nonlocal longest, counted
        number = 0
        while not ended.is_set() or number < total:
            number += 1
            journal = (a, b)[number % 2]
            began = time.perf_counter()
            some = updates(f"{n}:{number}")
            first = await insisted(journal, some, ProducerId(f"p{n}", number), lost)
            if number % 3 == 0:
                other = (b, a)[number % 2]
                again = await insisted(other, some, ProducerId(f"p{n}", number), lost)
                assert again == first
            longest = max(longest, time.perf_counter() - began)
            acknowledged[n].append(first)
            counted += 1

    async def kill() -> None:
        for number in range(10):
            while counted < 2_000 * (number + 1):
                await asyncio.sleep(0.05)
            leader = await _leader(nats_cluster)
            leader.kill()
            await asyncio.sleep(1.5)
            await asyncio.to_thread(leader.start)
            await _all_current(nats_cluster)
        ended.set()

    began = time.perf_counter()
    await asyncio.gather(kill(), *(produce(n) for n in range(8)))
    took = time.perf_counter() - began
    print(
        f"\n10 leaders killed during {counted:,} publishes in {took:.0f} s: the longest wait was"
        f" {longest:.1f} s"
    )
    await a.until_applied((await b.log.status()).last)
    await b.until_applied((await b.log.status()).last)
    found = texts(await stored(a, topics()))
    assert found == texts(await stored(b, topics()))
    assert len(found) == counted >= 200_000
    place = {text: sequence for sequence, text in enumerate(found, 1)}
    for n, sequences in acknowledged.items():
        assert sequences == sorted(sequences)
        assert [place[f"{n}:{number}"] for number in range(1, len(sequences) + 1)] == sequences
    assert longest <= 10


async def _info(brokers: Brokers) -> dict[str, object]:
    servers = [f"nats://127.0.0.1:{server.port}" for server in brokers.servers]
    connection = await client.connect(servers, max_reconnect_attempts=5)
    try:
        answer = await connection.request("$JS.API.STREAM.INFO.leaders", b"", timeout=5)
        found: dict[str, object] = json.loads(answer.data)
        return found
    finally:
        await connection.close()


async def _leader(brokers: Brokers) -> Any:
    cluster: Any = (await _info(brokers))["cluster"]
    return next(s for s in brokers.servers if s.name == cluster["leader"])


async def _all_current(brokers: Brokers) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            cluster: Any = (await _info(brokers)).get("cluster", {})
            replicas = cluster.get("replicas", ())
            if cluster.get("leader") and len(replicas) == 2 and all(r["current"] for r in replicas):
                return
        except Exception:
            pass
        await asyncio.sleep(0.3)
    raise AssertionError("the replicas do not catch up")
