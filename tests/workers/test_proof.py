"""kill -9 of workers in turn, under readers that resume and producers that repeat."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from tests.cli.tools import ServerProcess
from tests.client.servers import QUICK
from tests.workers.serving import kill, serving, whole


@dataclass
class Verdict:
    """What was found; all of `errors` to `out_of_order` must be nothing."""

    stored: int = 0
    delivered: int = 0
    resumed: int = 0
    errors: list[str] = field(default_factory=list)
    lost: int = 0
    twice: int = 0
    out_of_order: int = 0

    def faults(self) -> int:
        return len(self.errors) + self.lost + self.twice + self.out_of_order


async def ordeal(
    server: ServerProcess, *, kills: int, readers: int, producers: int, workers: int = 2
) -> Verdict:
    found = Verdict()
    acknowledged: list[str] = []
    read: list[list[tuple[int, str]]] = [[] for _ in range(readers)]
    over = asyncio.Event()
    began = time.monotonic()

    def count(event: object) -> None:
        found.resumed += getattr(event, "kind", "") == "resumed"

    async def follow(got: list[tuple[int, str]], ready: asyncio.Event) -> None:
        async with (
            AsyncClient(server.address, backoff=QUICK, on_event=count) as client,
            client.subscribe("proof.>", start="all") as updates,
        ):
            async for update in updates:
                ready.set()
                if update.message == "end":
                    return
                if update.message != "begin":
                    got.append((update.sequence, update.message))

    async def write(name: str) -> None:
        async with AsyncClient(server.address, backoff=QUICK) as client:
            number = 0
            while not over.is_set():
                text = f"{name}:{number}"
                await client.publish(f"proof.{name}", text)
                acknowledged.append(text)
                number += 1

    async def note_errors(work: asyncio.Task[None]) -> None:
        try:
            await work
        except Exception as error:
            found.errors.append(f"{type(error).__name__}: {error}")

    async with AsyncClient(server.address, backoff=QUICK) as client:
        started = [asyncio.Event() for _ in read]
        await client.publish("proof.begin", "begin")
        following = [
            asyncio.create_task(follow(got, ready))
            for got, ready in zip(read, started, strict=True)
        ]
        await asyncio.gather(*(ready.wait() for ready in started))
        writing = [asyncio.create_task(write(f"p{number}")) for number in range(producers)]
        for number in range(kills):
            enough = len(acknowledged) + 50
            while len(acknowledged) < enough and not any(task.done() for task in writing):
                await asyncio.sleep(0.01)
            status = await whole(client, workers)
            kill(status.workers[number % workers].pid)
        await whole(client, workers)
        over.set()
        await asyncio.gather(*map(note_errors, writing))
        await client.publish("proof.end", "end")
        async with asyncio.timeout(60):
            await asyncio.gather(*map(note_errors, following))
        rows = [
            row
            async for row in client.query(
                "SELECT message FROM updates WHERE topic GLOB 'proof.*'"
            ).rows()
        ]
    stored = Counter(row["message"] for row in rows)
    found.stored = len(stored) - 2
    found.twice = sum(count - 1 for count in stored.values())
    found.lost = sum(text not in stored for text in acknowledged)
    for got in read:
        found.delivered += len(got)
        found.out_of_order += sum(b[0] <= a[0] for a, b in pairwise(got))
        texts = Counter(text for _, text in got)
        found.twice += sum(count - 1 for count in texts.values())
        found.lost += len(set(stored) - {"begin", "end"} - set(texts))
    print(f"\n{kills} kills in {time.monotonic() - began:.1f} s: {found}")
    return found


@pytest.mark.soak
async def test_ten_kills_under_fifty_readers_and_eight_producers(tmp_path: Path) -> None:
    with serving(tmp_path / "store.db") as server:
        verdict = await ordeal(server, kills=10, readers=50, producers=8)
    assert verdict.faults() == 0, verdict
    assert verdict.delivered == 50 * verdict.stored > 0
    assert verdict.resumed >= 50
