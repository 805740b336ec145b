"""Connections that break at random bytes: what a subscriber was given equals the log."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest

from streamkit.client import AsyncClient, ClientEvent
from streamkit.codec import encode
from streamkit.config import Backoff
from streamkit.generated.streamservice import Update
from streamkit.testing import Fault, FaultProxy
from tests.client.servers import memory_server

QUICKEST = Backoff(first=0.001, longest=0.02)
FAULTS = ["cut", "cut", "half_close", "half_close", "reset", "reset", "chop", "delay"]
AHEAD = 5_000
"""So many updates at most are published ahead of the slowest subscriber."""


class Record:
    """What one subscriber was given: its bytes, of which only the digest is kept."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self.ended = False
        self._digest = hashlib.blake2b()

    def take(self, update: Update) -> None:
        data = encode(update)
        self.count += 1
        self.size += len(data)
        self._digest.update(data)
        self.ended = update.message == "end"

    def bytes_seen(self) -> tuple[int, int, str]:
        return self.count, self.size, self._digest.hexdigest()


class Lane:
    """One subscriber behind a proxy of its own that breaks its connection again and again."""

    def __init__(self, server: str, points: int, seed: int) -> None:
        self.given = Record()
        self.broken = asyncio.Event()
        self.committed: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.proxy = FaultProxy(server)
        self._points = points
        self._chance = random.Random(seed)

    def _on_event(self, event: ClientEvent) -> None:
        self.events[event.kind] += 1

    async def run(self) -> None:
        async with self.proxy as proxy:
            client = AsyncClient(
                proxy.address, backoff=QUICKEST, idle_timeout=0.3, on_event=self._on_event
            )
            async with client, client.subscribe(">", start="all") as updates:
                troubling = asyncio.create_task(self._trouble())
                async for update in updates:
                    self.given.take(update)
                    if self.given.ended:
                        break
                await troubling

    async def _trouble(self) -> None:
        try:
            for point in range(self._points):
                await self._break(point)
        finally:
            self.broken.set()  # whatever happened, the publisher ends and the test with it

    async def _break(self, point: int) -> None:
        proxy = self.proxy
        fault = "black_hole" if point % 100 == 50 else self._chance.choice(FAULTS)
        self.committed[fault] += 1
        if fault == "chop":
            proxy.chop(1)
        elif fault == "delay":
            proxy.delay(0.002)
        # A write for each byte is slow: fewer of them.
        after = self._chance.randrange(1, 300 if fault == "chop" else 2500)
        if fault in ("chop", "delay"):
            fault = self._chance.choice(["cut", "reset"])
        links = proxy.accepted
        proxy.after(after, cast(Fault, fault))
        what = f"break {point} ({fault}) at {self.given.count} delivered, {self.events}"
        await until(lambda: proxy.accepted > links, what)
        before = self.given.count
        await proxy.heal()
        await until(lambda: self.given.count > before, what)


async def publish(client: AsyncClient, lanes: list[Lane], chance: random.Random) -> int:
    """Keep bytes flowing until every lane has had its breaks; the last message is "end"."""
    number = 0
    async with client.publisher() as publisher:
        while not all(lane.broken.is_set() for lane in lanes):
            number += 1
            text = f"{number}:" + "x" * chance.choice([0, 10, 100, 1000])
            await publisher.send(f"t.{number % 7}", text, {"n": str(number)})
            await asyncio.sleep(0.001 if number % 10 == 0 else 0)
            while number > min(lane.given.count for lane in lanes) + AHEAD:
                await asyncio.sleep(0.001)
        await publisher.send("t.end", "end")
        await publisher.flush()
    return number + 1


async def chaos(points: int, seed: int, lanes: int) -> None:
    """Break connections `points` times in all, each after a random number of bytes."""
    started = time.monotonic()
    async with memory_server() as address, AsyncClient(address) as straight:
        everyone = [Lane(address, points // lanes, seed * 1000 + n) for n in range(lanes)]
        async with asyncio.TaskGroup() as group:
            for lane in everyone:
                group.create_task(lane.run())
            publishing = group.create_task(publish(straight, everyone, random.Random(seed)))
        log = Record()
        async with straight.subscribe(">", start="all") as all_of_it:
            async for update in all_of_it:
                log.take(update)
                if log.ended:
                    break
    committed = sum((lane.committed for lane in everyone), Counter[str]())
    accepted = sum(lane.proxy.accepted for lane in everyone)
    print(
        f"\nchaos: {committed.total()} breaks {dict(committed)} of {lanes} subscribers, "
        f"{sum(lane.events['resumed'] for lane in everyone)} resumes over {accepted} connections, "
        f"{log.count} updates ({log.size} bytes) delivered to each, "
        f"{time.monotonic() - started:.1f} s"
    )
    assert log.count == publishing.result()
    for lane in everyone:
        assert lane.given.bytes_seen() == log.bytes_seen()
    assert accepted >= points, "every break cost a connection"


async def until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.0005)
    except TimeoutError:
        raise AssertionError(f"nothing went on after {what}") from None


@pytest.mark.timeout(100)
async def test_two_hundred_breaks_lose_and_repeat_nothing() -> None:
    await chaos(200, seed=5, lanes=2)


@pytest.mark.soak
async def test_ten_thousand_breaks_lose_and_repeat_nothing() -> None:
    await chaos(10_000, seed=6, lanes=8)
