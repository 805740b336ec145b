"""Three brokers that are one cluster: what servers do when one of them does nothing any more."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.errors import StoreError
from streamkit.journal import ProducerId, open_journal
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.testing.journal.support import stored, texts, topics, updates
from tests.brokers import Broker, Brokers
from tests.journal.replicated.logs import insisted

_LONGEST = 30.0
"""Seconds: some ten on a machine that does nothing else, most of them for choosing a new first
broker."""


@pytest.mark.timeout(180)
async def test_a_broker_that_stops_is_left_for_another_and_nothing_is_lost(
    nats_cluster: Brokers, tmp_path: Path
) -> None:
    url = nats_cluster.url("stopped")
    a = await open_journal(url, JournalOptions(), data=tmp_path / "a")
    b = await open_journal(url, JournalOptions(), data=tmp_path / "b")
    lost: list[StoreError] = []
    a.on_lost = b.on_lost = lost.append

    async def publish(number: int) -> None:
        await insisted((a, b)[number % 2], updates(f"{number}"), ProducerId("p", number + 1), lost)

    async with a, b:
        for number in range(20):
            await publish(number)
        counts = [await asyncio.to_thread(connections, server) for server in nats_cluster.servers]
        stopped = nats_cluster.servers[counts.index(max(counts))]
        stopped.stop()
        try:
            longest = 0.0
            for number in range(20, 40):
                began = time.monotonic()
                await publish(number)
                longest = max(longest, time.monotonic() - began)
        finally:
            stopped.go_on()
        print(f"\nof {counts} connections those to one that stops: waited {longest:.1f} s at most")
        for journal in (a, b):
            assert isinstance(journal, ReplicatedJournal)
            await journal.until_applied((await journal.log.status()).last)
        found = texts(await stored(a, topics()))
        assert found == texts(await stored(b, topics())) == [f"{number}" for number in range(40)]
        assert longest < _LONGEST


def connections(server: Broker) -> int:
    """Those of servers of ours."""
    url = f"http://127.0.0.1:{server.monitor}/connz"
    with urllib.request.urlopen(url, timeout=5) as reply:
        found = json.load(reply)["connections"]
    return sum(one.get("name") == "streamkit" for one in found)
