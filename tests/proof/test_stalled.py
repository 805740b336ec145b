"""Readers that stop reading: they cost little, slow nobody, and are cut in time."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from streamkit.client import AsyncClient
from streamkit.codec import encode
from streamkit.generated.streamservice import SubscribeRequest
from tests.client.servers import QUICK
from tests.proof.processes import Serving, cpu_seconds, memory

MESSAGE = "x" * 200


class Stalled(asyncio.Protocol):
    """A raw client that subscribes and never reads again; it only sees the end."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.subscribed = asyncio.get_running_loop().create_future()
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._h2.initiate_connection()
        self._h2.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/streamservice.StreamService/SubscribeToUpdates"),
                (":authority", "test"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
        )
        data = encode(SubscribeRequest(topics=["load"]))
        self._h2.send_data(1, b"\0" + len(data).to_bytes(4, "big") + data, end_stream=True)
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        # Read, but no window is ever given back: to the server that is a reader who has stopped.
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived) and not self.subscribed.done():
                self.subscribed.set_result(None)
            if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                self._end()
        self.transport.write(self._h2.data_to_send())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(asyncio.get_running_loop().time())


class Side:
    """A server of its own with healthy subscribers, a publisher, and what it was seen to cost."""

    def __init__(self, server: Serving, client: AsyncClient, healthy: int) -> None:
        self.server = server
        self.client = client
        self.published = 0
        self.received = 0
        self._reading = [asyncio.create_task(self._read()) for _ in range(healthy)]

    async def _read(self) -> None:
        async with self.client.subscribe("load", start="all") as updates:
            while batch := await updates.receive():
                self.received += len(batch)

    async def publish(self, count: int) -> float:
        """Acknowledged updates a second."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with self.client.publisher() as publisher:
            for _ in range(count):
                await publisher.send("load", MESSAGE)
            await publisher.flush()
        self.published += count
        rate = count / (loop.time() - started)
        await self.caught_up()
        return rate

    async def caught_up(self) -> None:
        """Until every healthy subscriber has everything: the other side has the machine then."""
        async with asyncio.timeout(60):
            while self.received < self.published * len(self._reading):
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)


async def in_turns(
    sides: list[Side], count: int, turns: int, until: float = 0.0
) -> tuple[list[float], list[float]]:
    """Publish to one side and the other in turn, at least so many times and on until then.

    Return each side's median rate, and its server's CPU time for a publish.
    """
    loop = asyncio.get_running_loop()
    rates: list[list[float]] = [[] for _ in sides]
    before = [cpu_seconds(side.server.pid) for side in sides]
    turn, longest = 0, 0.0
    while turn < turns or loop.time() + 1.5 * longest < until:
        began = loop.time()
        order = list(zip(sides, rates, strict=True))
        for side, mine in order if turn % 2 else order[::-1]:
            mine.append(await side.publish(count))
        longest = max(longest, loop.time() - began)
        turn += 1
    used = [cpu_seconds(side.server.pid) - was for side, was in zip(sides, before, strict=True)]
    return [statistics.median(mine) for mine in rates], [sum_ / turn / count for sum_ in used]


async def connect(address: str, count: int) -> list[Stalled]:
    """So many stalled subscribers, each on a connection of its own, all confirmed."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    made: list[Stalled] = []
    for first in range(0, count, 50):
        some = range(min(50, count - first))
        dialled = (loop.create_connection(Stalled, host, int(port)) for _ in some)
        made += [protocol for _, protocol in await asyncio.gather(*dialled)]
    await asyncio.gather(*(protocol.subscribed for protocol in made))
    return made


async def at_rest(server: Serving) -> None:
    """Until the server has nothing left to do."""
    used, now = -1.0, cpu_seconds(server.pid)
    while now > used:
        used = now
        await asyncio.sleep(0.2)
        now = cpu_seconds(server.pid)


async def stall(
    folder: Path, stalled: int, healthy: int, count: int, timeout: float, least: float
) -> None:
    """Two servers alike, of which one gets stalled subscribers too, published to in turns."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        sides: list[Side] = []
        for name in ("free", "stalled"):
            server = await stack.enter_async_context(
                Serving(folder / f"{name}.db", stall_timeout=timeout, ring_records=4_096)
            )
            client = AsyncClient(server.address, backoff=QUICK)
            await stack.enter_async_context(client)
            sides.append(Side(server, client, healthy))
            stack.push_async_callback(sides[-1].end)
        free, loaded = sides
        await in_turns(sides, count, turns=2)  # the rings are full, the code warm
        alike, cpu_alike = await in_turns(sides, count, turns=8)
        before = memory(loaded.server.pid)
        protocols = await connect(loaded.server.address, stalled)
        # Their windows are filled: from here on nothing more can be sent to them.
        fill = 4 * 65_536 // len(MESSAGE)
        began = loop.time()
        await free.publish(fill)
        await loaded.publish(fill)
        await at_rest(loaded.server)
        full = loop.time()
        # What cutting them costs is not a publisher's business: it is over before that begins.
        rates, cpu = await in_turns(sides, count, turns=1, until=began + timeout - 0.5)
        cost = (memory(loaded.server.pid) - before) / stalled
        async with asyncio.timeout(timeout + 20):
            cut = await asyncio.gather(*(protocol.ended for protocol in protocols))
        for protocol in protocols:
            protocol.transport.abort()
        for side in sides:
            await side.caught_up()
    ratio = rates[1] / rates[0] / (alike[1] / alike[0])
    dearer = cpu[1] / cpu[0] / (cpu_alike[1] / cpu_alike[0])
    print(
        f"\n{stalled} stalled + {healthy} healthy subscribers: {rates[1]:,.0f} publishes/s, "
        f"{rates[0]:,.0f} on a server without the stalled ({alike[1]:,.0f} and {alike[0]:,.0f} "
        f"before they came): {ratio:.1%}; server CPU {cpu[1] * 1e6:.1f} us a publish and "
        f"{cpu[0] * 1e6:.1f} ({cpu_alike[1] * 1e6:.1f} and {cpu_alike[0] * 1e6:.1f}): "
        f"{dearer:.1%}; {cost / 1024:.0f} KiB each; cut at the earliest {min(cut) - began:.1f} s "
        f"after the first was full, at the latest {max(cut) - full:.1f} s after the last (stall "
        f"timeout {timeout:g} s); "
        f"healthy got all {loaded.received:,}"
    )
    assert min(cut) - began >= timeout - 0.5, "nobody is cut before the stall timeout"
    assert cost <= 256 * 1024
    assert max(cut) - full <= timeout + 2.0
    assert 1 / dearer >= least


@pytest.mark.timeout(90)
async def test_a_hundred_stalled_readers_slow_nobody(tmp_path: Path) -> None:
    # What is promised, 95%, a short run on a busy machine cannot tell from noise.
    await stall(tmp_path, stalled=100, healthy=3, count=2_000, timeout=4.0, least=0.5)


@pytest.mark.soak
async def test_a_thousand_stalled_readers_slow_nobody(tmp_path: Path) -> None:
    # Over before any connection, stalled or not, is asked for its sign of life after 30 s.
    await stall(tmp_path, stalled=1_000, healthy=10, count=4_000, timeout=22.0, least=0.95)
