"""Behind real proxies with an idle limit of five seconds, restarted again and again.

Nothing is lost, nothing comes twice, and no error reaches a user: of streams, writers and single
calls. A query that takes longer than the limit to find its first row comes through as well.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from streamkit import AsyncClient, Channel, Reconnect, ResumingCall, Retry, Server
from streamkit.client import ClientEvent
from streamkit.config import Backoff
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.generated.streamservice import StartFrom, SubscribeRequest, Update
from tests.proof.proxies import PROXIES, Proxy, find

IDLE = 5
QUIET = 2.4 * IDLE
"""Seconds: long enough for a stream that asks for nothing to be cut twice."""
RESTARTS = [signal.SIGTERM, signal.SIGKILL] * 3
QUICK = Backoff(first=0.5, longest=2.0)
"""Five attempts of a single call take longer than the slowest of these proxies to be back."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SLOW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
    "SELECT count(*) AS n FROM n"
)


class World:
    """One server, one proxy, and everything that reads and writes through it."""

    def __init__(self, direct: AsyncClient, proxied: AsyncClient, address: str) -> None:
        self.direct, self.proxied, self.address = direct, proxied, address
        self.updates: list[int] = []
        self.entries: list[str] = []
        self.states: list[int] = []
        self.status = ""
        self.own: list[int] = []
        self.published = 0

    async def subscribe(self) -> None:
        async with self.proxied.subscribe("a", start="all") as updates:
            async for update in updates:
                self.updates.append(int(update.message))

    async def follow(self) -> None:
        async with self.proxied.logs("api", follow=True, start="all") as entries:
            async for entry in entries:
                self.entries.append(entry.message)

    async def watch(self) -> None:
        async with self.proxied.watch_job("job", wait=5) as states:
            async for state in states:
                self.states.append(state.sequence)
                self.status = state.status

    async def resume(self) -> None:
        """A service that sends no heartbeats: it is cut again and again, and goes on."""

        def request_from(number: int | None) -> SubscribeRequest:
            place = WirePosition(epoch=epoch, sequence=number or 0)
            return SubscribeRequest(topics=["a"], start=StartFrom(after=place))

        async with self.direct.subscribe("a") as stream:
            assert stream.position is not None
            epoch = stream.position.epoch
        async with (
            Channel(self.address) as channel,
            ResumingCall(
                channel,
                "/streamservice.StreamService/SubscribeToUpdates",
                SubscribeRequest,
                Update,
                request_from=request_from,
                position_of=lambda update: update.sequence,
                reconnect=Reconnect(lambda: Retry(QUICK)),
            ) as updates,
        ):
            async for update in updates:
                self.own.append(int(update.message))

    async def write(self, restarts: asyncio.Event) -> None:
        """Bursts through a pipeline, by single calls, as a log and as a job; then silence."""
        client = self.proxied
        async with (
            client.publisher() as publisher,
            client.log_writer("api") as log,
            client.job("job", total=1000) as job,
        ):
            for burst in itertools.count():
                for _ in range(20):
                    self.published += 1
                    await publisher.send("a", str(self.published))
                    log.write(str(self.published))
                await publisher.flush()
                await log.flush()
                await job.update(completed=burst)
                self.published += 1
                await client.publish("a", str(self.published))
                if restarts.is_set():
                    return
                await asyncio.sleep(QUIET if burst == 0 else 0.3)


@pytest.mark.parametrize("name", PROXIES)
async def test_streams_outlive_a_proxy(name: str, tmp_path: Path) -> None:
    program = find(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    events: list[ClientEvent] = []
    async with Server(journal=":memory:", port=0) as server:
        proxy = Proxy(name, program, tmp_path, server.port, IDLE)
        await proxy.start()
        try:
            async with (
                AsyncClient(server.address) as direct,
                AsyncClient(proxy.address, backoff=QUICK, on_event=events.append) as proxied,
            ):
                world = World(direct, proxied, proxy.address)
                await _live_through(world, proxy)
                # Nobody restarts anything now, and the first row takes longer than the limit.
                slow = await _slow_query(proxied, direct)
        finally:
            await proxy.stop()
    everything = list(range(1, world.published + 1))
    assert world.updates == everything
    assert world.own == everything
    assert world.entries == [str(n) for n in everything if n % 21]
    assert world.states == sorted(set(world.states))
    assert world.status == "completed"
    kinds = [event.kind for event in events]
    print(
        f"{name}: {world.published} updates, {kinds.count('lost')} breaks of streams,"
        f" lost 0, twice 0, errors 0; a query of {slow:.0f} s"
    )


async def _live_through(world: World, proxy: Proxy) -> None:
    restarted = asyncio.Event()

    async def trouble() -> None:
        await asyncio.sleep(QUIET)
        for how in RESTARTS:
            await asyncio.sleep(1.0)
            await proxy.restart(how)
        restarted.set()

    reading: list[Coroutine[Any, Any, None]] = [world.subscribe(), world.follow(), world.resume()]
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(world.write(restarted))
        readers = [group.create_task(read) for read in reading]
        group.create_task(world.watch())
        group.create_task(trouble())
        await writing
        async with asyncio.timeout(60):
            while not len(world.updates) == len(world.own) == world.published:
                await asyncio.sleep(0.05)
            while len(world.entries) < world.published - world.published // 21:
                await asyncio.sleep(0.05)
        for reader in readers:
            reader.cancel()


async def _slow_query(client: AsyncClient, direct: AsyncClient) -> float:
    """A query whose first row takes twice the limit; returns its seconds."""
    loop = asyncio.get_running_loop()
    count = 1_000_000
    while True:
        began = loop.time()
        async with direct.query(SLOW.format(count)) as query:
            assert [row async for row in query] == [{"n": count}]
        took = loop.time() - began
        if took > 0.5:
            break
        count *= 2
    count = int(count * 2 * IDLE / took)
    took = 0.0
    while took <= IDLE:  # what it took at first may have been the machine's other work
        began = loop.time()
        async with client.query(SLOW.format(count), timeout=120) as query:
            assert [row async for row in query] == [{"n": count}]
        took = loop.time() - began
        count *= 2
    return took
