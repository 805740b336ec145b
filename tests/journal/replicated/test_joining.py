"""Servers that were never here, or away for long, and what the log no longer holds."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from streamkit.config import JournalOptions, LogLimits, Retention, RetentionRule
from streamkit.errors import StoreError, StreamkitError
from streamkit.generated.streamservice import JobReport
from streamkit.journal import Journal, ProducerId
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.testing.journal.support import Clock, log, stored, texts, topics, updates
from tests.journal.replicated.logs import MemoryLog, dump, follow

SMALL = LogLimits(snapshot_bytes=1, snapshot_part=10_000, lag=5.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_an_empty_server_joins_a_log_whose_beginning_is_gone(
    tmp_path: Path, clock: Clock
) -> None:
    shared = MemoryLog()
    async with await follow(shared, tmp_path / "a", clock, limits=SMALL) as a:
        for n in range(200):
            await a.append_updates(updates(f"{n}" * 500), ProducerId("p", n + 1))
        await a.keep(early=True)
        await a.append_updates(updates("after"))
        status = await shared.status()
        assert shared.kept and status.first == shared.kept[0][0].place > 100
        async with await follow(MemoryLog(shared), tmp_path / "b", clock, limits=SMALL) as b:
            assert texts(await stored(b, topics())) == texts(await stored(a, topics()))
            again = await b.append_updates(updates("repeated"), ProducerId("p", 7))
            assert again.first == 7
            await a.prune()
            await b.append_updates(updates("last"))
            for journal in (a, b):
                await journal.until_applied((await shared.status()).last)
            assert dump(tmp_path / "a") == dump(tmp_path / "b")


async def test_a_server_that_was_away_for_long_loads_a_snapshot(
    tmp_path: Path, clock: Clock
) -> None:
    shared = MemoryLog()
    async with await follow(MemoryLog(shared), tmp_path / "b", clock, limits=SMALL) as b:
        await b.append_updates(updates("early"))
    async with await follow(shared, tmp_path / "a", clock, limits=SMALL) as a:
        await a.append_updates(updates("late" * 1000))
        await a.keep(early=True)
        async with await follow(MemoryLog(shared), tmp_path / "b", clock, limits=SMALL) as b:
            assert len(await stored(b, topics())) == 2


async def test_what_another_store_has_left_does_not_get_into_a_snapshot(
    tmp_path: Path, clock: Clock
) -> None:
    """A server died, and whoever removed its store forgot the log of writes beside it."""
    shared = MemoryLog()
    store = tmp_path / "b" / "streamkit.db"
    async with await follow(MemoryLog(shared), tmp_path / "b", clock, limits=SMALL) as b:
        await b.append_updates(updates("early"))
        beside = Path(f"{store}-wal").read_bytes()
    assert beside
    store.unlink()
    async with await follow(shared, tmp_path / "a", clock, limits=SMALL) as a:
        await a.append_updates(updates("late" * 1000))
        await a.keep(early=True)
        Path(f"{store}-wal").write_bytes(beside)
        async with await follow(MemoryLog(shared), tmp_path / "b", clock, limits=SMALL) as b:
            assert texts(await stored(b, topics())) == texts(await stored(a, topics()))


async def test_without_a_snapshot_nobody_joins_in_the_middle(tmp_path: Path, clock: Clock) -> None:
    shared = MemoryLog()
    async with await follow(shared, tmp_path / "a", clock) as a:
        await a.append_updates(updates("x"))
        await a.append_updates(updates("y"))
    await shared.trim(3)
    with pytest.raises(StoreError, match="no snapshot"):
        await follow(MemoryLog(shared), tmp_path / "b", clock)
    shared.removed[0] = 0
    async with await follow(MemoryLog(shared), tmp_path / "b", clock) as b:
        assert len(await stored(b, topics())) == 2


async def test_a_snapshot_that_is_not_whole_is_not_taken(tmp_path: Path, clock: Clock) -> None:
    shared = MemoryLog()
    async with await follow(shared, tmp_path / "a", clock, limits=SMALL) as a:
        await a.append_updates(updates("x"))
        await a.keep(early=True)
        shared.kept[0][1].pop()
        with pytest.raises(StoreError, match="not whole"):
            await follow(MemoryLog(shared), tmp_path / "b", clock)
        assert list((tmp_path / "b").glob("*.joining*")) == []


OPTIONS = JournalOptions(
    retention=Retention(
        max_age=40.0,
        max_bytes=1 << 20,
        rules=(
            RetentionRule(pattern="few.>", keep_last=3),
            RetentionRule(pattern="small.>", max_bytes=20_000),
            RetentionRule(pattern="short.>", max_age=5.0),
        ),
    ),
    live_jobs=20,
)


@pytest.mark.parametrize("seed", range(3))
async def test_random_commands_leave_the_same_on_every_server(
    tmp_path: Path, clock: Clock, seed: int
) -> None:
    """One from the first entry on, one that is started again and again, one by a snapshot."""
    await _random_commands(tmp_path, clock, seed, 250)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
async def test_many_random_commands_leave_the_same_on_every_server(
    tmp_path: Path, clock: Clock, seed: int
) -> None:
    await _random_commands(tmp_path, clock, seed, 3000)


async def _random_commands(tmp_path: Path, clock: Clock, seed: int, count: int) -> None:
    chance = random.Random(seed)
    shared = MemoryLog()
    a = await follow(shared, tmp_path / "a", clock, options=OPTIONS, limits=SMALL)
    b = await follow(MemoryLog(shared), tmp_path / "b", clock, options=OPTIONS, limits=SMALL)
    for _ in range(count):
        journal = chance.choice((a, b))
        try:
            await _command(journal, chance, clock)
        except StoreError:
            raise
        except StreamkitError:
            pass  # refused, and by everybody alike
        if chance.random() < 8 / count:
            await b.close()
            b = await follow(MemoryLog(shared), tmp_path / "b", clock, options=OPTIONS)
        if chance.random() < 4 / count:
            await (a if chance.random() < 0.5 else b).keep(early=True)
    await a.prune()  # so that somebody has the lease
    before = len(shared.kept)
    await _holder(a, b).keep(early=True)
    assert len(shared.kept) > before
    c = await follow(MemoryLog(shared), tmp_path / "c", clock, options=OPTIONS)
    for _ in range(count // 10):
        try:
            await _command(chance.choice((a, b, c)), chance, clock)
        except StoreError:
            raise
        except StreamkitError:
            pass
    for journal in (c, b, a):
        await journal.append_updates(updates("end"))
    place = (await shared.status()).last
    for journal in (a, b, c):
        await journal.until_applied(place)
    found = [dump(tmp_path / name) for name in "abc"]
    assert found[0]["updates"] and found[0]["jobs"] and found[0]["dedupe"]
    for journal in (a, b, c):
        await journal.close()
    for other in found[1:]:
        for table, held in found[0].items():
            assert other[table] == held, table


def _holder(*journals: ReplicatedJournal) -> ReplicatedJournal:
    return next((journal for journal in journals if journal.holds), journals[0])


async def _command(journal: Journal, chance: random.Random, clock: Clock) -> None:
    producer = ProducerId(f"p{chance.randrange(3)}", chance.randrange(1, 400))
    match chance.randrange(10):
        case 0 | 1 | 2:
            topic = chance.choice(("few.a", "few.b", "small.a", "short.a", "long"))
            some = updates(*("x" * chance.randrange(2000) for _ in range(8)), topic=topic)
            await journal.append_updates(some, producer)
        case 3:
            level = chance.choice(("debug", "info", "warn", "error", "wrong"))
            await journal.append_logs([log("y" * chance.randrange(500), level)] * 5, producer)
        case 4:
            name = producer.id
            batches = [(updates("r"), ProducerId(name, producer.sequence + n)) for n in range(20)]
            begun = journal.append_runs_soon(batches)
            if begun is not None:
                await begun
        case 5 | 6 | 7:
            report = JobReport(
                job_id=f"j{chance.randrange(40)}",
                status=chance.choice(("pending", "running", "running", "completed", "failed")),
                percentage=chance.choice((None, chance.randrange(101))),
            )
            if chance.random() < 0.5:
                report.heartbeat = timedelta(seconds=chance.choice((1, 3)))
            if chance.random() < 0.3:
                report.producer.id, report.producer.sequence = producer
            await journal.report_jobs([report, report], create=chance.random() < 0.1)
        case 8:
            await journal.cancel_job(f"j{chance.randrange(40)}", "enough")
        case 9:
            clock.advance(chance.choice((0.3, 1, 1, 1, 4)))
            await journal.prune()
