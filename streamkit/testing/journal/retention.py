"""What every journal removes, and how its readers learn of it."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from streamkit.config import JournalOptions, Retention, RetentionRule
from streamkit.errors import StreamGapError
from streamkit.generated.streamservice import JobReport
from streamkit.journal import Appended, Bounds, Position, Start, Stream
from streamkit.testing.journal.support import (
    Clock,
    Opener,
    following,
    log,
    logs,
    stored,
    texts,
    topics,
    updates,
)


class Retaining:
    """What is removed, and how readers learn of it."""

    options = JournalOptions(retention=Retention(max_age=60.0), ring_records=4)

    async def test_age_removes_and_numbers_go_on(self, opener: Opener, clock: Clock) -> None:
        async with await opener(options=self.options) as journal:
            await journal.append_updates(updates(*"abcdefgh"))
            clock.advance(50)
            await journal.append_updates(updates("i"))
            await journal.prune()
            assert journal.bounds(Stream.UPDATES) == Bounds(1, 9)
            clock.advance(20)
            await journal.prune()
            assert journal.bounds(Stream.UPDATES) == Bounds(9, 9)
            clock.advance(100)
            await journal.prune()
            assert journal.bounds(Stream.UPDATES) == Bounds(10, 9)
            assert await stored(journal, topics()) == []
            assert await journal.append_updates(updates("j")) == Appended(10, 1)
            assert texts(await stored(journal, topics())) == ["j"]

    async def test_a_loss_is_told(self, opener: Opener, clock: Clock) -> None:
        async with await opener(options=self.options) as journal:
            await journal.append_updates(updates(*"abcdefgh"))
            clock.advance(70)
            await journal.append_updates(updates("i", "j"))
            await journal.prune()
            old = Start(after=Position(journal.epoch, 3))
            for follow in (False, True):
                with pytest.raises(StreamGapError) as gap:
                    async with aclosing(journal.read(topics(), old, follow=follow)) as batches:
                        async for _ in batches:
                            pass
                assert (gap.value.oldest, gap.value.newest) == (9, 10)
                told = journal.read(topics("t"), old, follow=follow, tell_loss=True)
                async with aclosing(told) as batches:
                    assert (await anext(batches)).position.sequence == 3
                    batch = await anext(batches)
                    assert batch.loss == (4, 8)
                    found = list(batch.items)
                    while len(found) < 2:
                        found += (await anext(batches)).items
                    assert texts(found) == ["i", "j"]
            just = Start(after=Position(journal.epoch, 8))
            assert texts(await stored(journal, topics(), just)) == ["i", "j"]

    async def test_a_reader_that_stalls_learns_what_it_lost(
        self, opener: Opener, clock: Clock
    ) -> None:
        async with (
            await opener(options=self.options) as journal,
            following(journal, topics(), tell_loss=True) as slow,
        ):
            await journal.append_updates(updates(*"abcdefgh"))
            clock.advance(70)
            await journal.append_updates(updates("i"))
            await journal.prune()
            await journal.append_updates(updates(*"jklm"))
            batch = await slow.next()
            assert batch.loss is not None
            await slow.until(13 - batch.loss.last)
            assert batch.loss.first == 1
            assert texts(slow.entries) == list("abcdefghijklm")[batch.loss.last :]

    async def test_bytes_bound_what_is_kept(self, opener: Opener, clock: Clock) -> None:
        options = JournalOptions(retention=Retention(max_bytes=1 << 20), ring_records=4)
        async with await opener(options=options) as journal:
            for _ in range(40):
                await journal.append_updates(updates("x" * 1000) * 100)
                await journal.append_logs([log("y" * 1000)] * 20)
                clock.advance(1)
                await journal.prune()
            assert (await journal.status()).bytes < 3 << 20
            bounds = journal.bounds(Stream.UPDATES)
            assert bounds.newest == 4000
            assert 3000 < bounds.oldest < 3900
            # The older goes first: both streams reach back about as many of the rounds.
            logs = journal.bounds(Stream.LOGS).oldest
            assert abs(bounds.oldest / 100 - logs / 20) <= 8
            assert len(await stored(journal, topics())) == 4001 - bounds.oldest

    async def test_nobody_who_fills_one_table_empties_another(
        self, opener: Opener, clock: Clock
    ) -> None:
        options = JournalOptions(retention=Retention(max_bytes=2 << 20))
        async with await opener(options=options) as journal:
            await journal.append_updates(updates("precious") * 100)
            for n in range(60):
                clock.advance(1)
                failed = JobReport(job_id=f"j{n}", status="failed", error="e" * 200_000)
                await journal.report_jobs([failed])
                await journal.append_logs([log("y" * 1000)] * 100)
                await journal.prune()
            assert journal.bounds(Stream.UPDATES) == Bounds(1, 100)
            assert journal.bounds(Stream.LOGS).oldest > 1
            kept, _ = await journal.jobs(limit=100)
            assert 0 < len(kept) < 30
            assert kept[0].job_id == "j59"
            assert (await journal.status()).bytes < 6 << 20

    async def test_a_clock_that_jumps_removes_nothing(self, opener: Opener, clock: Clock) -> None:
        steady = 0.0
        async with await opener(options=self.options, steady=lambda: steady) as journal:
            await journal.append_updates(updates("a"))
            clock.advance(10 * 86400)
            await journal.prune()
            await journal.append_updates(updates("b"))
            clock.advance(-12 * 86400)
            await journal.prune()
            await journal.append_updates(updates("c"))
            await journal.prune()
            assert journal.bounds(Stream.UPDATES) == Bounds(1, 3)

    async def test_rules_for_patterns(self, opener: Opener, clock: Clock) -> None:
        rules = (
            RetentionRule(pattern="metrics.keep.>", max_age=1000.0),
            RetentionRule(pattern="metrics.>", max_age=60.0),
            RetentionRule(pattern="state.*", keep_last=2),
            RetentionRule(stream="logs", pattern="noisy*", max_bytes=60_000),
        )
        options = JournalOptions(retention=Retention(rules=rules), ring_records=1)
        async with await opener(options=options) as journal:
            for n in range(10):
                for topic in ("metrics.cpu", "metrics.keep.cpu", "orders.eu", "state.a", "state.b"):
                    await journal.append_updates(updates(f"{n}", topic=topic))
                await journal.append_logs([log("x" * 10_000, "warn", "noisy-1")] * 2)
                await journal.append_logs([log(f"{n}", "info", "quiet")])
                clock.advance(20)
            before = await journal.prune(dry_run=True)
            assert len(await stored(journal, topics())) == 50
            told = {(what.stream, what.pattern): what.records for what in before}
            assert told[Stream.UPDATES, ""] == 0
            assert told[Stream.UPDATES, "metrics.keep.>"] == 0
            assert 6 <= told[Stream.UPDATES, "metrics.>"] <= 7
            assert told[Stream.UPDATES, "state.*"] == 16
            assert all(what.bytes > 0 for what in before if what.records)
            await journal.prune()

            async def left(*patterns: str) -> list[str]:
                return texts(await stored(journal, topics(*patterns)))

            assert await left("orders.eu") == [str(n) for n in range(10)]
            assert await left("metrics.keep.>") == [str(n) for n in range(10)]
            assert await left("metrics.cpu") in (["7", "8", "9"], ["6", "7", "8", "9"])
            assert await left("state.a") == await left("state.b") == ["8", "9"]
            every = await stored(journal, topics())
            assert [e.sequence for e in every] == sorted(e.sequence for e in every)
            last = await stored(journal, topics("state.>", "metrics.>"), Start(last=5))
            assert len(last) == 5
            lines = await stored(journal, logs("noisy-1"))
            assert 1 <= len(lines) <= 6
            assert len(await stored(journal, logs("quiet"))) == 10
            assert len(await stored(journal, logs(level=2))) == len(lines)
            after = Start(after=Position(journal.epoch, 20))
            assert texts(await stored(journal, topics("orders.eu"), after)) == [
                str(n) for n in range(4, 10)
            ]
            again = await journal.prune(dry_run=True)
            assert sum(what.records for what in again if what.stream is Stream.UPDATES) == 0
            assert await journal.append_updates(updates("new", topic="state.a")) == Appended(51, 1)
            clock.advance(20)
            await journal.prune()
            assert await left("state.a") == ["9", "new"]
