"""How much an identity may have: streams, records a second, queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamkit.access.file import add_token, read_rules
from streamkit.client import AsyncClient
from streamkit.errors import LimitError
from streamkit.generated.streamservice import Update
from tests.access.servers import ROLES, client_of, serve

QUOTAS = """
[role.few]
subscribe = [">"]
publish = [">"]
query = ["*"]
streams = 2
publish_per_second = 200
queries = 1
"""


@pytest.fixture
async def limited(file: Path) -> AsyncIterator[tuple[str, str]]:
    file.write_text(ROLES + QUOTAS)
    token = add_token(file, "few", ["few"])
    assert read_rules(file).roles["few"].quota.streams == 2
    async with serve(access=file) as address:
        yield address, token


async def test_streams_beyond_the_quota_wait_for_their_turn(limited: tuple[str, str]) -> None:
    address, token = limited
    async with (
        client_of(address, token, reconnect=False) as hasty,
        client_of(address, token) as client,
    ):
        async with client.subscribe("a"), client.subscribe("b"):
            with pytest.raises(LimitError, match="token:few has 2 streams"):
                async with hasty.subscribe("c"):
                    pass
            third = client.subscribe("c")
            waiting = asyncio.create_task(third.__aenter__())
            # Half of what it is told to wait, so it was refused and has not come back.
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
        await asyncio.wait_for(waiting, 10)
        await third.close()


async def test_publishing_beyond_the_quota_is_slowed_and_loses_nothing(
    limited: tuple[str, str],
) -> None:
    address, token = limited
    loop = asyncio.get_running_loop()
    async with (
        client_of(address, token, reconnect=False) as hasty,
        client_of(address, token) as client,
    ):
        # A second's worth may come at once; what is beyond it is told when to come back.
        began = loop.time()
        await hasty.publish_many([Update("orders", "x")] * 300)
        with pytest.raises(LimitError, match="200 records a second"):
            await hasty.publish("orders", "y")
        await client.publish("orders", "z")
        # A writer's stream is read more slowly; nothing is refused, nothing is lost.
        async with client.publisher() as publisher:
            for number in range(150):
                await publisher.send("orders", str(number))
                if number % 25 == 24:
                    await publisher.flush()  # several requests, not one
        # All but a second's worth at the beginning and the last request at the end took its time.
        assert (300 + 1 + 125 - 200) / 200 <= loop.time() - began < 20
        rows = [row async for row in client.query("select count(*) as n from updates")]
        assert rows[0]["n"] == 300 + 1 + 150


async def test_queries_beyond_the_quota_are_told_to_come_back(limited: tuple[str, str]) -> None:
    address, token = limited
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    async with (
        client_of(address, token, reconnect=False) as hasty,
        client_of(address, token) as client,
    ):
        first = client.query(endless)
        async for _ in first:
            break
        with pytest.raises(LimitError, match="1 queries"):
            async for _ in hasty.query("select 1"):
                pass
        await first.close()
        assert [row async for row in client.query("select 1 as one")]


@pytest.mark.soak
async def test_a_noisy_identity_leaves_a_quiet_one_alone(file: Path) -> None:
    file.write_text('[role.noisy]\npublish = [">"]\npublish_per_second = 100\n')
    tokens = {"noisy": add_token(file, "noisy", ["noisy"])}
    tokens["quiet"] = add_token(file, "quiet", ["writer"])
    loop = asyncio.get_running_loop()

    async def p99(client: AsyncClient) -> float:
        spent = []
        for _ in range(400):
            began = loop.time()
            await client.publish("quiet", "x")
            spent.append(loop.time() - began)
            await asyncio.sleep(0.005)
        return sorted(spent)[-4]

    async def shout(client: AsyncClient) -> None:
        async with client.publisher() as publisher:
            while True:
                await publisher.send("noisy", "x" * 100)

    async def repeat(client: AsyncClient) -> None:
        while True:
            await client.publish("noisy", "x")

    async with (
        serve(access=file) as address,
        client_of(address, tokens["quiet"]) as quiet,
        client_of(address, tokens["noisy"]) as noisy,
    ):
        alone = [await p99(quiet)]
        shouting = [asyncio.create_task(work(noisy)) for work in (shout, repeat) for _ in range(4)]
        await asyncio.sleep(1)
        beside = await p99(quiet)
        for task in shouting:
            task.cancel()
        await asyncio.gather(*shouting, return_exceptions=True)
        alone.append(await p99(quiet))
    print(f"p99 of a quiet writer {max(alone) * 1e3:.1f} ms, beside a noisy one {beside * 1e3:.1f}")
    assert beside < 3 * max(alone)
