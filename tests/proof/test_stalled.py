"""Readers that stop reading: they cost little, slow nobody, and are cut in time."""

from __future__ import annotations

import asyncio
import statistics
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


async def publish(client: AsyncClient, count: int) -> float:
    """Acknowledged updates a second."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with client.publisher() as publisher:
        for _ in range(count):
            await publisher.send("load", MESSAGE)
        await publisher.flush()
    return count / (loop.time() - started)


async def stall(
    folder: Path, stalled: int, healthy: int, count: int, floor: float, in_time: float
) -> None:
    timeout = 4.0
    loop = asyncio.get_running_loop()
    async with Serving(folder / "store.db", stall_timeout=timeout, ring_records=4_096) as server:  # noqa: SIM117  # the client's address is the server's
        async with AsyncClient(server.address, backoff=QUICK) as client:
            received = 0

            async def read() -> None:
                nonlocal received
                async with client.subscribe("load") as updates:
                    while batch := await updates.receive():
                        received += len(batch)

            reading = [asyncio.create_task(read()) for _ in range(healthy)]
            for _ in range(2):
                await publish(client, count)  # the ring is full and the code warm
            cpu = cpu_seconds(server.pid)
            without = [await publish(client, count) for _ in range(3)]
            cpu_without = (cpu_seconds(server.pid) - cpu) / 3
            before = memory(server.pid)
            host, _, port = server.address.rpartition(":")
            protocols: list[Stalled] = []
            for first in range(0, stalled, 50):
                made = await asyncio.gather(
                    *(
                        loop.create_connection(Stalled, host, int(port))
                        for _ in range(min(50, stalled - first))
                    )
                )
                protocols += [protocol for _, protocol in made]
            await asyncio.gather(*(protocol.subscribed for protocol in protocols))
            # Their windows are filled: from here on nothing more can be sent to them.
            fill = 4 * 65_536 // len(MESSAGE)
            await publish(client, fill)
            full = loop.time()
            rates: list[float] = []
            cpu = cpu_seconds(server.pid)
            while not rates or (loop.time() < full + timeout - 3.0 and len(rates) < 3):
                rates.append(await publish(client, count))
            cpu_with = (cpu_seconds(server.pid) - cpu) / len(rates)
            cost = (memory(server.pid) - before) / stalled
            early = sum(protocol.ended.done() for protocol in protocols)
            async with asyncio.timeout(timeout + 20):
                cut = await asyncio.gather(*(protocol.ended for protocol in protocols))
            for protocol in protocols:
                protocol.transport.abort()
            published = count * (5 + len(rates)) + fill
            async with asyncio.timeout(30):
                while received < published * healthy:
                    await asyncio.sleep(0.01)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
    ratio = statistics.median(rates) / statistics.median(without)
    print(
        f"\n{stalled} stalled + {healthy} healthy subscribers: {statistics.median(rates):,.0f} "
        f"publishes/s, {ratio:.1%} of {statistics.median(without):,.0f} without; "
        f"server CPU for a publish {cpu_with / cpu_without:.2f} of that without; "
        f"{cost / 1024:.0f} KiB each; cut {min(cut) - full:.1f} to {max(cut) - full:.1f} s after "
        f"they were full (stall timeout {timeout:g} s); healthy got all {received:,}"
    )
    assert early == 0, "nobody is cut before the stall timeout"
    assert cost <= 256 * 1024
    assert max(cut) - full <= in_time * timeout + 2.0
    assert cpu_with <= 2.0 * cpu_without
    assert ratio >= floor


@pytest.mark.timeout(90)
async def test_a_hundred_stalled_readers_slow_nobody(tmp_path: Path) -> None:
    # The rate to hold is 95%, which a short run on a busy machine cannot tell from noise: here the
    # server's own work is judged, and being cut at all.
    await stall(tmp_path, stalled=100, healthy=5, count=3_000, floor=0.3, in_time=1)


@pytest.mark.soak
async def test_a_thousand_stalled_readers_slow_nobody(tmp_path: Path) -> None:
    await stall(tmp_path, stalled=1_000, healthy=10, count=20_000, floor=0.95, in_time=1)
