"""kill -9 of the server, again and again, while it is published to and subscribed to.

Independent processes write down what they were told; a checker that knows nothing of streamkit
compares their files with the store.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from tests.client.servers import QUICK
from tests.proof.processes import Serving, Worker


@dataclass
class Verdict:
    """What the checker found; every field but `stored` and `delivered` must be 0."""

    stored: int = 0
    delivered: int = 0
    acknowledged_lost: int = 0
    stored_twice: int = 0
    stored_out_of_order: int = 0
    wrong_sequence: int = 0
    gaps: int = 0
    delivered_twice: int = 0
    altered: int = 0

    def faults(self) -> int:
        return int(sum(vars(self).values())) - self.stored - self.delivered


def check(store: Path, publishers: dict[str, Path], subscribers: list[Path]) -> Verdict:
    """Compare the store with what publishers and subscribers wrote down."""
    found = Verdict()
    with sqlite3.connect(store) as database:
        query = "SELECT sequence, message FROM updates ORDER BY sequence"
        rows = database.execute(query).fetchall()
    database.close()
    found.stored = len(rows)
    place = {message: sequence for sequence, message in rows}
    found.stored_twice = len(rows) - len(place)
    for name, notes in publishers.items():
        numbers = [
            int(message.partition(":")[2])
            for _, message in rows
            if message.startswith(f"{name}:") and "single" not in message
        ]
        found.stored_out_of_order += sum(b <= a for a, b in pairwise(numbers))
        acknowledged = 0
        for line in notes.read_text().splitlines():
            kind, *rest = line.split()
            if kind == "ack":
                acknowledged = int(rest[0])
            elif rest[0] not in place:
                found.acknowledged_lost += 1
            elif place[rest[0]] != int(rest[1]):
                found.wrong_sequence += 1
        found.acknowledged_lost += len(set(range(acknowledged)) - set(numbers))
    for file in subscribers:
        given = [line.split(" ", 1) for line in file.read_text().splitlines()]
        found.delivered += len(given)
        sequences = [int(sequence) for sequence, _ in given]
        found.delivered_twice += len(sequences) - len(set(sequences))
        found.gaps += len({sequence for sequence, _ in rows} - set(sequences))
        found.altered += sum(place.get(message) != int(sequence) for sequence, message in given)
    return found


async def ordeal(folder: Path, *, total: int, kills: int, rate: int, processes: int) -> Verdict:
    """Run the whole thing and return the checker's verdict."""
    chance = random.Random(total)
    store = folder / "store.db"
    publishers = {"a": folder / "published-a", "b": folder / "published-b"}
    subscribers = [folder / f"delivered-{number}" for number in range(8)]
    started = time.monotonic()
    async with Serving(store) as server:
        readers = [
            await Worker(
                "tests.proof.subscribing",
                address=server.address,
                files=[str(path) for path in subscribers[number::processes]],
            ).start()
            for number in range(processes)
        ]
        for number, reader in enumerate(readers):
            for _ in subscribers[number::processes]:
                assert await reader.line() == "ready"
        writers = [
            await Worker(
                "tests.proof.publishing",
                address=server.address,
                name=name,
                total=total // 2,
                rate=rate // 2,
                single_every=max(100, total // 400),
                file=str(path),
            ).start()
            for name, path in publishers.items()
        ]
        for writer in writers:
            assert await writer.line() == "ready"
        done = [0, 0]

        async def follow(index: int) -> None:
            while (count := await writers[index].line()) is not None:
                done[index] = count

        following = [asyncio.create_task(follow(index)) for index in range(2)]
        for number in range(kills):
            target = total * (number + chance.uniform(0.2, 0.8)) / (kills + 1)
            while sum(done) < target:
                await asyncio.sleep(0.002)
            await asyncio.sleep(chance.uniform(0, 0.02))
            server.kill()
            await server.end()
            await server.start()
        await asyncio.gather(*following)
        for writer in writers:
            assert await writer.end() == 0
        async with AsyncClient(server.address, backoff=QUICK) as client:
            await client.publish("end", "end")
        resumed = 0
        for reader in readers:
            resumed += await reader.line()
            assert await reader.end() == 0
    verdict = check(store, publishers, subscribers)
    print(
        f"\nkill -9 x {kills} during {total} publishes, 8 subscribers resumed {resumed} times, "
        f"{time.monotonic() - started:.1f} s: {verdict}"
    )
    assert resumed >= 8, "the subscribers lived through the kills"
    return verdict


@pytest.mark.timeout(150)
async def test_nothing_is_lost_or_repeated_by_killing_the_server(tmp_path: Path) -> None:
    verdict = await ordeal(tmp_path, total=4_000, kills=3, rate=3_000, processes=2)
    assert verdict.faults() == 0
    assert verdict.stored >= 4_000
    assert verdict.delivered == 8 * verdict.stored


@pytest.mark.soak
async def test_a_million_publishes_and_fifty_kills(tmp_path: Path) -> None:
    verdict = await ordeal(tmp_path, total=1_000_000, kills=50, rate=0, processes=8)
    assert verdict.faults() == 0
    assert verdict.stored >= 1_000_000
    assert verdict.delivered == 8 * verdict.stored


def test_the_checker_finds_every_kind_of_fault(tmp_path: Path) -> None:
    store, notes, given = tmp_path / "store.db", tmp_path / "notes", tmp_path / "given"
    with sqlite3.connect(store) as database:
        database.execute("CREATE TABLE updates (sequence INTEGER, message TEXT)")
        rows = [(1, "a:0"), (2, "a:2"), (3, "a:1"), (4, "a:1"), (5, "a:single9")]
        database.executemany("INSERT INTO updates VALUES (?, ?)", rows)
    database.close()
    notes.write_text("ack 4\none a:single9 7\none a:single10 8\n")
    given.write_text("1 a:0\n1 a:0\n2 wrong\n4 a:1\n")
    found = check(store, {"a": notes}, [given])
    assert (found.stored, found.delivered) == (5, 4)
    assert found.acknowledged_lost == 2, "number 3 and a:single10"
    assert (found.stored_twice, found.stored_out_of_order, found.wrong_sequence) == (1, 2, 1)
    assert (found.gaps, found.delivered_twice, found.altered) == (2, 1, 1)
