"""Ordered, unique, reliable, atomic, resumable, bookmarkable: one check for each, over a history
that many publishers make while retention runs, one reader starves and one keeps breaking off."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

import streamkit.codec  # noqa: F401  # compiled messages: the publishers are not what is measured
from streamkit.config import JournalOptions, Retention
from streamkit.generated.streamservice import Update
from streamkit.journal import (
    Delivery,
    Journal,
    Position,
    ProducerId,
    Record,
    Selector,
    Start,
    Stream,
)
from streamkit.journal.opening import open_journal
from streamkit.testing.journal.support import topics

PUBLISHERS = 32


class Checker:
    """Looks at what one reader is given and counts what breaks a promise."""

    def __init__(self, publisher: int | None = None) -> None:
        self.violations: Counter[str] = Counter()
        self.publisher = publisher
        self.delivered = 0
        self.lost = 0
        self.position = 0
        self._sequence = 0
        self._next: tuple[int, int, int] | None = None
        """Publisher, request and index that must follow in this request, if it goes on."""
        self._request = 0

    def see(self, batch: Delivery[Record]) -> None:
        if batch.loss is not None:
            if batch.loss.first != self.position + 1 or batch.loss.last < batch.loss.first:
                self.violations["reliable"] += 1
            self.lost += batch.loss.last - batch.loss.first + 1
            self._sequence = batch.loss.last
            self._next = None
            self._request = 0
        for entry in batch.items:
            assert isinstance(entry.message, Update)
            self._record(entry.sequence, entry.message.message)
        newest = batch.position.sequence
        if newest < self.position or newest < self._sequence:
            self.violations["bookmarkable"] += 1
        self.position = newest

    def _record(self, sequence: int, text: str) -> None:
        self.delivered += 1
        if sequence == self._sequence:
            self.violations["unique"] += 1
        elif sequence < self._sequence:
            self.violations["ordered"] += 1
        if sequence <= self.position:
            self.violations["bookmarkable"] += 1  # "everything up to there was delivered"
        if self.publisher is None and self._sequence and sequence != self._sequence + 1:
            self.violations["reliable"] += 1
        self._sequence = sequence
        publisher, request, index, count = map(int, text.split())
        if self._next is not None and self._next != (publisher, request, index):
            self.violations["atomic"] += 1
        if self.publisher is not None and index == 0:
            if self._request and request != self._request + 1:
                self.violations["reliable"] += 1
            self._request = request
        self._next = (publisher, request, index + 1) if index + 1 < count else None


async def publish(journal: Journal, publisher: int, events: int) -> int:
    """Publish at least so many events in requests of random sizes, repeating some of them."""
    chance = random.Random(publisher)
    done = request = 0
    while done < events:
        request += 1
        count = chance.choice((1, 2, 5, 60, 200))
        updates = [
            Update(topic=f"w.{publisher}", message=f"{publisher} {request} {n} {count}")
            for n in range(count)
        ]
        producer = ProducerId(f"p{publisher}", request)
        stored = await journal.append_updates(updates, producer)
        if chance.random() < 0.02:
            assert await journal.append_updates(updates, producer) == stored
        done += count
    return done


async def read(
    journal: Journal, selector: Selector, checker: Checker, after: int, until: asyncio.Event
) -> None:
    """Read in one go, to the end of what was published."""
    start = Start(after=Position(journal.epoch, after))
    batches = journal.read(selector, start, follow=True, heartbeat=0.2, tell_loss=True)
    async with aclosing(batches):
        async for batch in batches:
            checker.see(batch)
            if until.is_set() and checker.position >= journal.bounds(Stream.UPDATES).newest:
                return


async def read_in_pieces(journal: Journal, checker: Checker, until: asyncio.Event) -> int:
    """Break off all the time and resume after the last delivered position."""
    chance = random.Random(0)
    pieces = 0
    while not (until.is_set() and checker.position >= journal.bounds(Stream.UPDATES).newest):
        pieces += 1
        start = Start(after=Position(journal.epoch, checker.position))
        left = chance.randint(1, 3)
        batches = journal.read(topics(), start, follow=True, heartbeat=0.2, tell_loss=True)
        async with aclosing(batches):
            async for batch in batches:
                checker.see(batch)
                left -= 1
                if not left:
                    break
    return pieces


async def starve(journal: Journal, checker: Checker, until: asyncio.Event, nap: int) -> None:
    """Take one delivery, then none until many more records are there."""
    batches = journal.read(topics(), Start(), follow=True, heartbeat=0.2, tell_loss=True)
    async with aclosing(batches):
        async for batch in batches:
            checker.see(batch)
            goal = checker.position + nap
            while not until.is_set() and journal.bounds(Stream.UPDATES).newest < goal:
                await asyncio.sleep(0.001)
            if until.is_set() and checker.position >= journal.bounds(Stream.UPDATES).newest:
                return


async def prove(path: str, events: int, most_bytes: int) -> None:
    options = JournalOptions(retention=Retention(max_bytes=most_bytes), ring_records=2048)
    began = time.perf_counter()
    async with await open_journal(path, options) as journal:
        until = asyncio.Event()
        checkers = {
            "healthy": Checker(),
            "one topic": Checker(publisher=7),
            "in pieces": Checker(),
            "starved": Checker(),
        }
        readers = [
            asyncio.create_task(read(journal, topics(), checkers["healthy"], 0, until)),
            asyncio.create_task(read(journal, topics("w.7"), checkers["one topic"], 0, until)),
            asyncio.create_task(read_in_pieces(journal, checkers["in pieces"], until)),
            asyncio.create_task(starve(journal, checkers["starved"], until, events // 3)),
        ]
        published = sum(
            await asyncio.gather(
                *(publish(journal, n, events // PUBLISHERS) for n in range(PUBLISHERS))
            )
        )
        until.set()
        # One more record wakes whoever had read everything before the end was announced.
        await journal.append_updates([Update(topic="end", message="0 0 0 1")])
        results = await asyncio.gather(*readers, return_exceptions=True)
        assert not [r for r in results if isinstance(r, BaseException)], results
        bounds = journal.bounds(Stream.UPDATES)
        assert bounds.newest == published + 1
        seconds = time.perf_counter() - began
        print(
            f"{published:,} events by {PUBLISHERS} publishers in {seconds:.0f} s,"
            f" {bounds.oldest - 1:,} removed by retention, {results[2]} resumes"
        )
        for name, checker in checkers.items():
            print(
                f"  {name}: {checker.delivered:,} delivered, {checker.lost:,} told as lost,"
                f" violations {dict(checker.violations) or 0}"
            )
        for name, checker in checkers.items():
            assert not checker.violations, name
            assert checker.position == bounds.newest
            if checker.publisher is None:
                assert checker.delivered + checker.lost == bounds.newest
        assert bounds.oldest > 1
        assert checkers["starved"].lost > 0


async def test_six_adjectives(tmp_path: Path) -> None:
    await prove(str(tmp_path / "store.db"), events=60_000, most_bytes=1 << 20)


@pytest.mark.soak
async def test_six_adjectives_at_length(tmp_path: Path) -> None:
    await prove(str(tmp_path / "store.db"), events=10_000_000, most_bytes=128 << 20)
