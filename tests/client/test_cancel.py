"""Cancellation always wins, whatever breaks in the same moment, and leaves the task clean."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamkit.client import AsyncClient
from streamkit.errors import ConnectError
from streamkit.testing import FaultProxy
from tests.client.servers import QUICK, memory_server

ROUNDS = 300


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize("work", ["subscribe", "publish", "flush"])
async def test_cancelled_in_the_moment_of_a_lost_connection(work: str) -> None:
    chance = random.Random(work)
    outcomes = {"cancelled": 0, "lost": 0, "over": 0}
    async with memory_server() as address, FaultProxy(address) as proxy:

        async def run(client: AsyncClient, ready: asyncio.Event) -> None:
            if work == "subscribe":
                async with client.subscribe("a") as updates:
                    ready.set()
                    await updates.receive()
            elif work == "publish":
                ready.set()
                while True:
                    await client.publish("a", "x")
            else:
                async with client.publisher() as publisher:
                    ready.set()
                    while True:
                        await publisher.send("a", "x")
                        await publisher.flush()

        async with AsyncClient(proxy.address, backoff=QUICK) as client:
            await client.ping()
            for _ in range(ROUNDS):
                ready = asyncio.Event()
                task = asyncio.create_task(run(client, ready))
                await ready.wait()
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    proxy.reset()
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
                    asked = task.cancel()
                else:
                    asked = task.cancel()
                    proxy.reset()
                done, _ = await asyncio.wait([task], timeout=5)
                assert done, "the task goes on after its cancellation"
                if asked:
                    outcomes["cancelled" if task.cancelled() else "lost"] += 1
                else:
                    outcomes["over"] += 1  # the budget for repeating was spent before
                    assert isinstance(task.exception(), ConnectError)
    print(f"{work}: {outcomes}")
    assert outcomes["lost"] == 0
    assert outcomes["cancelled"] > ROUNDS * 0.8


async def test_timeouts_leave_no_trace_in_the_task() -> None:
    """On 3.13 a count that is not taken back cancels a later task group."""
    async with memory_server() as address, FaultProxy(address) as proxy:
        client = AsyncClient(proxy.address, backoff=QUICK, idle_timeout=0.1)
        async with client:
            await client.ping()
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.005), client.subscribe("a") as updates:
                        await updates.receive()
                assert cancelling() == 0
            proxy.black_hole()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4), client.subscribe("a") as updates:
                    await updates.receive()
            assert cancelling() == 0
            await proxy.heal()
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.publish("a b", "x"))
            assert await client.publish("a", "x") > 0


async def test_leaving_early_in_every_way_frees_the_server() -> None:
    async with memory_server() as address, AsyncClient(address) as client:
        for _ in range(3):
            await client.publish("a", "x")
        async for _ in client.subscribe("a", start="all"):
            break
        async with client.subscribe("a", start="all") as updates:
            async for _ in updates:
                break
        with pytest.raises(KeyError):
            async with client.subscribe("a", start="all") as updates:
                async for _ in updates:
                    raise KeyError
        stream = client.subscribe("a", start="all")
        await stream.receive()
        await stream.close()
        assert await stream.receive() == []
        async with asyncio.timeout(5):
            while any(one.subscribers for one in (await client.status()).streams):
                await asyncio.sleep(0.01)
