"""A server that goes away and comes back: how often clients knock, and what they lose (nothing)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from streamkit.client import AsyncClient, ClientEvent, Subscription
from streamkit.client.retry import Retry
from streamkit.config import Backoff
from streamkit.errors import ConnectError
from streamkit.server import Server
from tests.client.servers import until
from tests.proof.processes import Serving


def test_a_thousand_clients_by_the_clock_of_the_rules() -> None:
    """The default delays themselves, thirty seconds without a server, no waiting at all."""
    chance = random.Random(1)
    attempts: list[float] = []
    most = 0
    for _ in range(1000):
        retry = Retry(chance=chance.random)
        now, mine = 0.0, 0
        while now < 30.0:
            delay = retry.delay(ConnectError("away"))
            assert delay is not None
            now += delay
            mine += 1
            attempts.append(now)
        most = max(most, mine)
    buckets = Counter(int(moment * 10) for moment in attempts)
    share = max(buckets.values()) / len(attempts)
    print(
        f"\n1,000 clients, server away 30 s (by the rules): at most {most} attempts each, "
        f"{len(attempts)} in all, the fullest 100 ms hold {share:.1%}"
    )
    assert most <= 8
    assert share <= 0.05


async def storm(folder: Path, clients: int, away: float, scale: float) -> None:
    """The same with real connections; delays and buckets are scaled."""
    backoff = Backoff(first=1.0 * scale, longest=30.0 * scale)
    attempts: list[float] = []
    each: Counter[int] = Counter()
    loop = asyncio.get_running_loop()
    listening: asyncio.Server | None = None

    def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with Serving(folder / "store.db") as server:
        port = int(server.address.rpartition(":")[2])
        started: dict[int, float] = {}

        def listener(number: int):  # type: ignore[no-untyped-def]  # one callback per client
            def on_event(event: ClientEvent) -> None:
                if event.kind == "reconnecting":
                    assert event.delay is not None
                    attempts.append(loop.time() + event.delay)
                    each[number] += 1
                elif event.kind == "resumed":
                    started[number] = loop.time()

            return on_event

        everyone = [
            AsyncClient(server.address, backoff=backoff, on_event=listener(number))
            for number in range(clients)
        ]
        streams = [client.subscribe("news") for client in everyone]
        for first in range(0, clients, 50):
            await asyncio.gather(*(s.__aenter__() for s in streams[first : first + 50]))
        reading = [asyncio.create_task(stream.receive()) for stream in streams]
        server.kill()
        await server.end()
        gone = loop.time()
        listening = await asyncio.start_server(refuse, "127.0.0.1", port)
        await asyncio.sleep(away)
        listening.close()
        await listening.wait_closed()
        await server.start()
        back = loop.time()
        await until(lambda: len(started) == clients, timeout=60 * scale + 30)
        async with AsyncClient(server.address) as publisher:
            await publisher.publish("news", "back")
        for got in await asyncio.gather(*reading):
            assert got[0].message == "back"
        for client in everyone:
            await client.close()
    width = 0.1 * scale
    buckets = Counter(int((moment - gone) / width) for moment in attempts)
    share = max(buckets.values()) / len(attempts)
    print(
        f"\n{clients} clients, server away {back - gone:.1f} s (delays x {scale:g}): at most "
        f"{max(each.values())} attempts each, {len(attempts)} in all, the fullest "
        f"{width * 1000:g} ms hold {share:.1%}, all back {max(started.values()) - back:.1f} s later"
    )
    assert max(each.values()) <= 8
    assert share <= 0.05


@pytest.mark.timeout(60)
async def test_a_hundred_clients_knock_seldom_and_spread_out(tmp_path: Path) -> None:
    await storm(tmp_path, 100, away=2.0, scale=0.1)


@pytest.mark.soak
async def test_a_thousand_clients_knock_seldom_and_spread_out(tmp_path: Path) -> None:
    await storm(tmp_path, 1000, away=30.0, scale=1.0)


async def restarts(folder: Path, times: int, clients: int) -> None:
    """One server taken down and brought back, in order, under clients that notice nothing."""
    store, per_topic = folder / "store.db", 10
    quick = Backoff(first=0.05, longest=0.3)
    port, errors, started = 0, [], time.monotonic()
    got: list[list[int]] = [[] for _ in range(clients)]
    events: Counter[str] = Counter()

    async def read(number: int, stream: Subscription) -> None:
        try:
            async for update in stream:
                if update.message == "end":
                    return
                got[number].append(int(update.message))
        except Exception as error:
            errors.append(error)

    server = Server(journal=store, port=port)
    await server.start()
    port = server.port

    def count(event: ClientEvent) -> None:
        events[event.kind] += event.detail != "publisher"

    everyone = [AsyncClient(server.address, backoff=quick, on_event=count) for _ in range(clients)]
    streams = [client.subscribe(f"t.{n % per_topic}", "end") for n, client in enumerate(everyone)]
    for stream in streams:
        await stream.__aenter__()
    reading = [asyncio.create_task(read(n, stream)) for n, stream in enumerate(streams)]
    published: list[list[int]] = [[] for _ in range(per_topic)]
    stopping = False

    async def publish() -> None:
        number = 0
        async with everyone[0].publisher() as publisher:
            while not stopping:
                published[number % per_topic].append(number)
                await publisher.send(f"t.{number % per_topic}", str(number))
                number += 1
                await asyncio.sleep(0.002)
            await publisher.send("end", "end")

    publishing = asyncio.create_task(publish())
    for _ in range(times):
        before = events["resumed"]
        await server.stop(grace=1.0)
        server = Server(journal=store, port=port)
        await server.start()
        await until(lambda: events["resumed"] >= before + clients, timeout=20)  # noqa: B023  # awaited before the next
    stopping = True
    await publishing
    await asyncio.gather(*reading)
    for client in everyone:
        await client.close()
    await server.stop()
    lost = sum(len(set(published[n % per_topic]) - set(got[n])) for n in range(clients))
    twice = sum(len(numbers) - len(set(numbers)) for numbers in got)
    order = sum(b <= a for numbers in got for a, b in pairwise(numbers))
    print(
        f"\n{clients} clients over {times} restarts: errors {len(errors)}, lost {lost}, "
        f"twice {twice}, out of order {order}; {sum(map(len, published))} published, "
        f"{sum(map(len, got))} delivered, {events['resumed']} resumes, "
        f"{time.monotonic() - started:.1f} s"
    )
    assert (errors, lost, twice, order) == ([], 0, 0, 0)
    assert sum(map(len, published)) > times


@pytest.mark.timeout(60)
async def test_four_restarts_are_not_noticed(tmp_path: Path) -> None:
    await restarts(tmp_path, times=4, clients=20)


@pytest.mark.soak
async def test_twenty_restarts_are_not_noticed(tmp_path: Path) -> None:
    await restarts(tmp_path, times=20, clients=50)
