"""Two servers on one log, killed in turn under producers and readers that know both of them."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from tests.brokers import Brokers
from tests.client.servers import QUICK
from tests.database.engines import Postgres
from tests.proof.processes import Serving, Worker
from tests.proof.test_kill import Verdict, check


async def ordeal(
    folder: Path, url: str, *, total: int, kills: int, rate: int, readers: int, writers: int
) -> Verdict:
    """Kill two servers in turn while there is writing and reading; the checker's verdict."""
    chance = random.Random(total)
    names = [f"w{number}" for number in range(writers)]
    publishers = {name: folder / f"published-{name}" for name in names}
    subscribers = [folder / f"delivered-{number}" for number in range(readers)]
    started = time.monotonic()
    async with (
        Serving(url, data=str(folder / "a")) as one,
        Serving(url, data=str(folder / "b")) as two,
    ):
        both = f"{one.address},{two.address}"
        files = [str(path) for path in subscribers]
        reading = await Worker("tests.proof.subscribing", address=both, files=files).start()
        for _ in subscribers:
            assert await reading.line() == "ready"
        writing = [
            await Worker(
                "tests.proof.publishing",
                address=both,
                name=name,
                total=total // writers,
                rate=rate // writers,
                single_every=max(100, total // 200),
                file=str(path),
            ).start()
            for name, path in publishers.items()
        ]
        for writer in writing:
            assert await writer.line() == "ready"
        done = [0] * writers

        async def follow(index: int) -> None:
            while (count := await writing[index].line()) is not None:
                done[index] = count

        following = [asyncio.create_task(follow(index)) for index in range(writers)]
        for number in range(kills):
            target = total * (number + chance.uniform(0.2, 0.8)) / (kills + 1)
            while sum(done) < target:
                await asyncio.sleep(0.002)
            server = (one, two)[number % 2]
            server.kill()
            await server.end()
            await server.start()
        await asyncio.gather(*following)
        for writer in writing:
            assert await writer.end() == 0
        async with AsyncClient(both, backoff=QUICK) as client:
            last = await client.publish("end", "end")
        resumed = await reading.line()
        assert await reading.end() == 0
        for name in "ab":
            await _has(folder / name, last)
    verdict = check(folder / "a" / "streamkit.db", publishers, subscribers)
    print(
        f"\ntwo servers, kill -9 x {kills} during {total} publishes of {writers}, {readers} readers"
        f" resumed {resumed} times, {time.monotonic() - started:.1f} s: {verdict}"
    )
    assert _updates(folder / "a") == _updates(folder / "b")
    return verdict


async def _has(folder: Path, sequence: int) -> None:
    """Wait until a copy has so many updates."""
    while len(_updates(folder)) < sequence:
        await asyncio.sleep(0.05)


def _updates(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "streamkit.db")) as store:
        return store.execute("select * from updates order by sequence").fetchall()


@pytest.mark.timeout(150)
async def test_two_servers_that_are_killed_in_turn_lose_and_repeat_nothing(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = f"{postgres.superuser_url}&log=ordeal"
    verdict = await ordeal(tmp_path, url, total=3_000, kills=2, rate=1_500, readers=6, writers=2)
    assert verdict.faults() == 0
    assert verdict.delivered == 6 * verdict.stored


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["postgres", "nats", "nats_cluster"])
async def test_twenty_kills_under_fifty_readers(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(engine)
    url = (
        found.url("long-ordeal")
        if isinstance(found, Brokers)
        else f"{found.superuser_url}&log=long_ordeal"
    )
    verdict = await ordeal(tmp_path, url, total=40_000, kills=20, rate=800, readers=50, writers=8)
    assert verdict.faults() == 0
    assert verdict.delivered == 50 * verdict.stored


@pytest.mark.timeout(150)
async def test_a_server_whose_disk_is_full_leaves_and_nobody_notices(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = f"{postgres.superuser_url}&log=full"
    async with (
        Serving(url, data=str(tmp_path / "a"), file_bytes=400_000) as full,
        Serving(url, data=str(tmp_path / "b")) as other,
        AsyncClient(f"{full.address},{other.address}", backoff=QUICK) as client,
        AsyncClient(full.address, backoff=QUICK) as close,
    ):
        await close.publish("t", "begun")
        async with client.subscribe("t", start="all") as reader:
            got: list[str] = []
            for number in range(300):
                await client.publish("t", f"{number}:{'x' * 3000}")
            while len(got) < 301:
                got += [update.message.partition(":")[0] for update in await reader.receive()]
        assert got == ["begun", *map(str, range(300))]
        assert await full.end() == 3
    assert len(_updates(tmp_path / "b")) == 301
