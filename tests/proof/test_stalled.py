"""Readers that stop reading: they cost little, slow nobody, and are cut in time."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from tests.client.servers import QUICK
from tests.proof.processes import Serving, Worker, cpu_seconds, memory

MESSAGE = "x" * 200
WINDOWS = 4 * 65_536
"""Bytes that more than fill all that may be sent to somebody who gives no window back."""


class Publisher:
    """Publishes to a server with healthy subscribers, who have to keep up."""

    def __init__(self, client: AsyncClient, healthy: int) -> None:
        self._client = client
        self.published = 0
        self.received = 0
        self._reading = [asyncio.create_task(self._read()) for _ in range(healthy)]

    async def _read(self) -> None:
        async with self._client.subscribe("load", start="all") as updates:
            while batch := await updates.receive():
                self.received += len(batch)

    async def publish(self, count: int) -> float:
        """Return the seconds until all of it was acknowledged; every healthy one has it then."""
        began = time.monotonic()
        async with self._client.publisher() as publisher:
            for _ in range(count):
                await publisher.send("load", MESSAGE)
            await publisher.flush()
        taken = time.monotonic() - began
        self.published += count
        async with asyncio.timeout(60):
            while self.received < self.published * len(self._reading):
                await asyncio.sleep(0.002)
        return taken

    async def end(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)


async def at_rest(server: Serving) -> None:
    """Until the server has nothing left to do."""
    used, now = -1.0, cpu_seconds(server.pid)
    while now > used:
        used = now
        await asyncio.sleep(0.2)
        now = cpu_seconds(server.pid)


async def stall(
    folder: Path, *, stalled: int, healthy: int, count: int, turns: int, timeout: float
) -> float:
    """Publish to one server with and without stalled subscribers in turn.

    Return the rate with them by that without: the median of the turns.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            Serving(folder / "store.db", stall_timeout=timeout, ring_records=4_096)
        )
        client = await stack.enter_async_context(AsyncClient(server.address, backoff=QUICK))
        publisher = Publisher(client, healthy)
        stack.push_async_callback(publisher.end)

        async def measure() -> tuple[float, float]:
            """Publishes a second, and the server's CPU time for one."""
            await at_rest(server)
            before = cpu_seconds(server.pid)
            taken = [await publisher.publish(count) for _ in range(10)]
            used = cpu_seconds(server.pid) - before
            return 10 * count / sum(taken), used / (10 * count)

        async def stop_reading() -> Worker:
            """Stalled subscribers in a process of their own, all of them full."""
            settings = {"address": server.address, "topic": "load", "count": stalled}
            worker = await stack.enter_async_context(Worker("tests.proof.stalling", **settings))
            assert await worker.line() == stalled
            await publisher.publish(WINDOWS // len(MESSAGE))
            await at_rest(server)
            return worker

        await measure()  # the ring is full, the code warm
        before = memory(server.pid)
        free, loaded, cost = [], [], 0.0
        for turn in range(turns):
            if turn % 2:
                free.append(await measure())
            worker = await stop_reading()
            # Later ones get the memory that the first ones gave back to the process.
            cost = cost or (memory(server.pid) - before) / stalled
            loaded.append(await measure())
            worker.kill()
            await worker.end()
            if not turn % 2:
                free.append(await measure())
        began = time.monotonic()
        worker = await stop_reading()
        full = time.monotonic()
        async with asyncio.timeout(timeout + 20):
            first, last = await worker.line()
        await publisher.publish(count)

    rates = [with_[0] / without[0] for with_, without in zip(loaded, free, strict=True)]
    cpu = [with_[1] / without[1] for with_, without in zip(loaded, free, strict=True)]
    ratio = statistics.median(rates)
    print(
        f"\n{stalled} stalled + {healthy} healthy subscribers, {turns} turns of {10 * count:,}: "
        f"{statistics.median(one[0] for one in loaded):,.0f} publishes/s, without the stalled "
        f"{statistics.median(one[0] for one in free):,.0f}: {ratio:.1%} "
        f"({min(rates):.0%} to {max(rates):.0%}); server CPU for a publish "
        f"{statistics.median(one[1] for one in loaded) * 1e6:.1f} us, without "
        f"{statistics.median(one[1] for one in free) * 1e6:.1f}: {statistics.median(cpu):.1%}; "
        f"{cost / 1024:.0f} KiB each; cut {first - began:.1f} s after the first was full at "
        f"the earliest, {last - full:.1f} s after the last at the latest (stall timeout "
        f"{timeout:g} s); healthy got all {publisher.received:,}"
    )
    assert cost <= 256 * 1024
    assert first - began >= timeout - 0.5, "nobody is cut before the stall timeout"
    assert last - full <= timeout + 2.0
    return ratio


@pytest.mark.timeout(90)
async def test_a_hundred_stalled_readers_slow_nobody(tmp_path: Path) -> None:
    # What is promised, 95%, a short run on a busy machine cannot tell from noise.
    ratio = await stall(tmp_path, stalled=100, healthy=3, count=300, turns=2, timeout=3.0)
    assert ratio >= 0.5


@pytest.mark.soak
async def test_a_thousand_stalled_readers_slow_nobody(tmp_path: Path) -> None:
    ratio = await stall(tmp_path, stalled=1_000, healthy=10, count=3_000, turns=30, timeout=20.0)
    assert ratio >= 0.95
