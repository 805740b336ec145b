"""Connections that break at random bytes: what a subscriber was given equals the log."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import cast

import pytest

from streamkit.client import AsyncClient, ClientEvent, Subscription
from streamkit.codec import encode
from streamkit.config import Backoff
from streamkit.testing import Fault, FaultProxy
from tests.client.servers import memory_server

QUICKEST = Backoff(first=0.001, longest=0.02)
FAULTS = ["cut", "cut", "half_close", "half_close", "reset", "reset", "chop", "delay"]


async def chaos(points: int, seed: int) -> None:
    """Break the subscriber's connection `points` times, each after a random number of bytes."""
    chance = random.Random(seed)
    events: dict[str, int] = {}
    committed = dict.fromkeys([*FAULTS, "black_hole"], 0)
    given = bytearray()
    delivered = 0
    started = time.monotonic()

    def on_event(event: ClientEvent) -> None:
        events[event.kind] = events.get(event.kind, 0) + 1

    async with memory_server() as address, FaultProxy(address) as proxy:
        straight = AsyncClient(address)
        client = AsyncClient(proxy.address, backoff=QUICKEST, idle_timeout=0.3, on_event=on_event)
        async with straight, client, client.subscribe(">", start="all") as updates:

            async def publish() -> int:
                number = 0
                async with straight.publisher() as publisher:
                    while not broken.is_set():
                        number += 1
                        size = chance.choice([0, 10, 100, 1000])
                        text = f"{number}:" + "x" * size
                        await publisher.send(f"t.{number % 7}", text, {"n": str(number)})
                        await asyncio.sleep(0)
                        if number % 10 == 0:
                            await asyncio.sleep(0.001)
                    await publisher.send("t.end", "end")
                    await publisher.flush()
                return number + 1

            async def trouble() -> None:
                try:
                    await breaks()
                finally:
                    broken.set()  # whatever happened, the publisher ends and the test with it

            async def breaks() -> None:
                for point in range(points):
                    fault = "black_hole" if point % 100 == 50 else chance.choice(FAULTS)
                    committed[fault] += 1
                    if fault == "chop":
                        proxy.chop(1)
                    elif fault == "delay":
                        proxy.delay(0.002)
                    if fault in ("chop", "delay"):
                        fault = "cut"
                    links = proxy.accepted
                    # A write for each byte is slow: fewer of them.
                    after = chance.randrange(1, 300 if proxy._piece else 2500)
                    proxy.after(after, cast(Fault, fault))
                    what = f"break {point} ({fault}) at {delivered} delivered, {events}"
                    await until(lambda: proxy.accepted > links, what)  # noqa: B023
                    before = delivered
                    await proxy.heal()
                    await until(lambda: delivered > before, what)  # noqa: B023

            broken = asyncio.Event()
            publishing = asyncio.create_task(publish())
            troubling = asyncio.create_task(trouble())
            async for update in cast(Subscription, updates):
                delivered += 1
                given += encode(update)
                if update.message == "end":
                    break
            await troubling
            total = await publishing
        log = bytearray()
        async with AsyncClient(address) as plain, plain.subscribe(">", start="all") as all_of_it:
            async for update in all_of_it:
                log += encode(update)
                if update.message == "end":
                    break
    print(
        f"\nchaos: {points} breaks {committed}, {events.get('resumed', 0)} resumes over "
        f"{proxy.accepted} connections, {delivered} of {total} updates delivered, "
        f"{len(given)} bytes, {time.monotonic() - started:.1f} s"
    )
    assert delivered == total
    assert given == log
    assert proxy.accepted >= points, "every break cost a connection"


async def until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.0005)
    except TimeoutError:
        raise AssertionError(f"nothing went on after {what}") from None


@pytest.mark.timeout(100)
async def test_two_hundred_breaks_lose_and_repeat_nothing() -> None:
    await chaos(200, seed=5)


@pytest.mark.soak
async def test_ten_thousand_breaks_lose_and_repeat_nothing() -> None:
    await chaos(10_000, seed=6)
