"""How fast and at what cost: printed in the short forms, held to figures in the long ones."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from streamkit.client import AsyncClient
from tests.proof.processes import Serving, Worker, cpu_seconds

TEXT = "message number 123456789"


async def fill(address: str, count: int, topic: str = "load") -> float:
    """Publish through the pipeline; acknowledged events a second."""
    async with AsyncClient(address) as client, client.publisher() as publisher:
        began = time.perf_counter()
        for _ in range(count):
            await publisher.send(topic, TEXT)
        await publisher.flush()
        took = time.perf_counter() - began
        assert (publisher.acknowledged, publisher.dropped) == (count, 0)
    return count / took


# ---- durable ingest ----


async def ingest(folder: Path, count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for durability in ("normal", "full"):
        async with Serving(folder / f"{durability}.db", durability=durability) as server:
            await fill(server.address, count // 10)
            found[durability] = max([await fill(server.address, count) for _ in range(2)])
    print(
        f"\ndurable ingest, one publisher: {found['normal']:,.0f} acknowledged events/s at the "
        f"default durability, {found['full']:,.0f} at full"
    )
    return found


@pytest.mark.timeout(60)
async def test_ingest_is_printed(tmp_path: Path) -> None:
    found = await ingest(tmp_path, 10_000)
    assert min(found.values()) > 1_000


@pytest.mark.soak
async def test_sixty_thousand_durable_events_a_second(tmp_path: Path) -> None:
    found = await ingest(tmp_path, 500_000)
    assert found["normal"] >= 60_000


# ---- a long resume ----


async def resume(folder: Path, count: int) -> tuple[float, float]:
    """Updates a second read from the store by one streamkit client, and by grpcio from memory."""
    store = folder / "store.db"
    async with Serving(store) as server:
        await fill(server.address, count)
    # A new process: nothing of it is in memory, all of it comes from the store.
    async with Serving(store) as server:
        ours = await measured("streamkit", server.address, count)
    async with Worker("tests.proof.reading", role="serve", count=count, text=TEXT) as peer:
        theirs = await measured("grpcio", await peer.line(), count)
    print(
        f"\nresume of {count:,} updates from the store: {ours:,.0f}/s to a streamkit client; "
        f"grpcio.aio streaming the same from memory {theirs:,.0f}/s; {ours / theirs:.1f} times"
    )
    return ours, theirs


async def measured(role: str, address: str, count: int) -> float:
    async with Worker("tests.proof.reading", role=role, address=address, count=count) as reader:
        rate: float = await reader.line()
    return rate


@pytest.mark.timeout(60)
async def test_a_resume_from_the_store_is_printed(tmp_path: Path) -> None:
    ours, theirs = await resume(tmp_path, 8_000)
    assert ours > theirs


@pytest.mark.soak
async def test_a_million_updates_resumed(tmp_path: Path) -> None:
    ours, theirs = await resume(tmp_path, 1_000_000)
    assert ours >= 80_000
    assert ours >= 10 * theirs


# ---- many subscribers ----


async def cost(
    server: Serving, topics: list[str], published: list[str], messages: int
) -> dict[str, float]:
    """Server CPU, in microseconds, for subscribers on `topics` and messages on `published`."""
    clients: list[AsyncClient] = []
    streams: list[Any] = []
    wanted = sum(topic in set(published) for topic in topics)
    try:
        for first in range(0, len(topics), 500):
            client = AsyncClient(server.address)
            clients.append(client)
            streams += [client.subscribe(topic) for topic in topics[first : first + 500]]
        for first in range(0, len(streams), 50):
            await asyncio.gather(*(s.__aenter__() for s in streams[first : first + 50]))
        got = 0

        async def read(stream: Any) -> None:
            nonlocal got
            while batch := await stream.receive():
                got += len(batch)

        tasks = [asyncio.create_task(read(stream)) for stream in streams]
        async with AsyncClient(server.address) as client:
            used = cpu_seconds(server.pid)
            async with client.publisher() as publisher:
                for number in range(messages):
                    await publisher.send(published[number % len(published)], TEXT)
                    if number % 50 == 0:
                        await publisher.flush()
                await publisher.flush()
            share = messages // len(published)
            async with asyncio.timeout(300):
                while got < share * wanted:
                    await asyncio.sleep(0.01)
            used = cpu_seconds(server.pid) - used
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in clients:
            await client.close()
    return {"message": used / messages * 1e6, "delivery": used / max(got, 1) * 1e6}


async def subscribers(folder: Path, count: int, messages: int) -> float:
    """Print what many subscribers cost; return how much dearer an unwanted message is."""
    one, many = ["t.0"], [f"t.{number}" for number in range(count)]
    async with Serving(folder / "store.db") as server:
        await fill(server.address, 2_000, "warm")
        single = await cost(server, one, one, messages)
        apart = await cost(server, many, many, messages)
        together = await cost(server, one * count, one, max(messages // count * 5, 200))
        unwanted_one = await cost(server, one, ["nobody"], messages)
        unwanted_many = await cost(server, many, ["nobody"], messages)
    ratio = unwanted_many["message"] / unwanted_one["message"]
    print(
        f"\nserver CPU in us for a message / a delivery: 1 subscriber {single['message']:.0f} / "
        f"{single['delivery']:.0f}; {count} on {count} topics {apart['message']:.0f} / "
        f"{apart['delivery']:.0f}; {count} on one topic {together['message']:.0f} / "
        f"{together['delivery']:.1f}; a message that nobody wants: {unwanted_one['message']:.0f} "
        f"with 1 subscriber, {unwanted_many['message']:.0f} with {count} ({ratio:.2f} times)"
    )
    return ratio


@pytest.mark.timeout(90)
async def test_what_a_hundred_subscribers_cost_is_printed(tmp_path: Path) -> None:
    assert await subscribers(tmp_path, 100, 3_000) <= 3.0


@pytest.mark.soak
async def test_a_message_that_nobody_wants_costs_the_same(tmp_path: Path) -> None:
    assert await subscribers(tmp_path, 1_000, 50_000) <= 1.5
