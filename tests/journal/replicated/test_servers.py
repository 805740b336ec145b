"""Several servers on one log: what one is told holds on all of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from streamkit.config import JournalOptions, LogLimits, Retention, RetentionRule
from streamkit.errors import AlreadyExistsError, InvalidArgumentError, LimitError, StoreError
from streamkit.generated.streamservice import JobReport, Update
from streamkit.journal import Appended, Journal, ProducerId, Start, Stream, open_journal
from streamkit.journal.following.feed import Feed
from streamkit.journal.following.follower import FollowerJournal
from streamkit.journal.records.items import log_rows, update_rows
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.testing.journal.support import (
    Clock,
    following,
    log,
    logs,
    pass_time,
    stored,
    texts,
    topics,
    updates,
)
from tests.journal.replicated.logs import MemoryLog, dump, follow

LIMITS = LogLimits(lag=2.0, lease=3.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def until(journal: Journal, newest: int) -> None:
    """Wait until a server has so many updates."""
    async with following(journal, topics()) as reader:
        while journal.bounds(Stream.UPDATES).newest < newest:
            await reader.next()


async def level(*journals: Journal) -> None:
    """Wait until servers have applied the same."""
    newest = max(journal.bounds(Stream.UPDATES).newest for journal in journals)
    for journal in journals:
        await until(journal, newest)


@pytest.fixture
async def servers(tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[Journal, Journal]]:
    """Two servers on one log; the first has the lease."""
    log = MemoryLog()
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(await follow(log, tmp_path / "a", clock, limits=LIMITS))
        b = await stack.enter_async_context(
            await follow(MemoryLog(log), tmp_path / "b", clock, limits=LIMITS)
        )
        yield a, b


async def test_both_have_everything_at_the_same_places(servers: tuple[Journal, Journal]) -> None:
    a, b = servers
    assert a.epoch == b.epoch
    async with following(b, topics()) as reader:
        answers = await asyncio.gather(
            *(journal.append_updates(updates(f"{n}")) for n in range(50) for journal in (a, b))
        )
        assert sorted(answer.first for answer in answers) == list(range(1, 101))
        await reader.until(100)
    await level(a, b)
    assert texts(await stored(a, topics())) == texts(await stored(b, topics()))


async def test_a_repeat_on_the_other_server_gets_the_first_answer(
    servers: tuple[Journal, Journal], tmp_path: Path, clock: Clock
) -> None:
    a, b = servers
    who = ProducerId("p", 7)
    assert await a.append_updates(updates("x", "y"), who) == Appended(1, 2)
    assert await b.append_updates(updates("x", "y"), who) == Appended(1, 2)
    report = JobReport(job_id="j", status="running")
    await b.report_jobs([report], create=True)
    with pytest.raises(AlreadyExistsError):
        await a.report_jobs([report], create=True)
    await a.close()
    clock.advance(600)
    assert await b.append_updates(updates("x", "y"), who) == Appended(1, 2)
    assert len(await stored(b, topics())) == 2


async def test_the_first_answer_outlives_every_server(tmp_path: Path, clock: Clock) -> None:
    log = MemoryLog()
    async with await follow(log, tmp_path / "a", clock) as journal:
        assert await journal.append_updates(updates("x"), ProducerId("p", 1)) == Appended(1, 1)
    clock.advance(600)
    for folder in ("a", "fresh"):
        async with await follow(MemoryLog(log), tmp_path / folder, clock) as journal:
            assert await journal.append_updates(updates("x"), ProducerId("p", 1)) == Appended(1, 1)
            assert texts(await stored(journal, topics())) == ["x"]
    assert dump(tmp_path / "fresh")["updates"] == dump(tmp_path / "a")["updates"]


async def test_what_is_lost_or_doubled_on_the_way_is_there_once(
    tmp_path: Path, clock: Clock
) -> None:
    log = MemoryLog()
    async with await follow(log, tmp_path / "a", clock) as journal:
        log.double = True
        await asyncio.gather(*(journal.append_updates(updates(f"{n}")) for n in range(20)))
        log.double, log.lose = False, 2
        await asyncio.gather(*(journal.append_updates(updates(f"{n}")) for n in range(20, 40)))
        assert texts(await stored(journal, topics())) == [str(n) for n in range(40)]


async def test_a_copy_whose_log_is_gone_is_a_store_of_its_own(tmp_path: Path, clock: Clock) -> None:
    async with await follow(MemoryLog(), tmp_path / "a", clock) as journal:
        await journal.append_updates(updates("x", "y"))
        await journal.report_jobs([JobReport(job_id="j", status="running")])
    async with await open_journal(str(tmp_path / "a" / "streamkit.db"), clock=clock) as alone:
        assert texts(await stored(alone, topics())) == ["x", "y"]
        job = await alone.job("j")
        assert job is not None and job.status == "running"
        assert (await alone.append_updates(updates("z"))).first == 3


async def test_what_is_known_to_be_lost_is_sent_again_at_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.journal.replicated.outbox._REPEAT_AFTER", 1e9)
    log = MemoryLog()
    async with await follow(log, tmp_path / "a", clock) as journal, asyncio.timeout(30):
        log.lose = 2
        await asyncio.gather(*(journal.append_updates(updates(f"{n}")) for n in range(20)))
        assert texts(await stored(journal, topics())) == [str(n) for n in range(20)]


async def test_one_server_decides_what_time_brings_and_another_one_takes_over(
    servers: tuple[Journal, Journal], clock: Clock
) -> None:
    a, b = servers
    worker = JobReport(job_id="j", status="running")
    worker.heartbeat = worker.heartbeat.resolution * 1_000_000
    await a.report_jobs([worker])
    await a.close()  # gives the lease back
    await pass_time(b, clock, 8)
    job = await b.job("j")
    assert job is not None and job.status == "lost"


async def test_a_holder_that_is_silent_loses_the_lease_in_the_order_of_the_log(
    tmp_path: Path, clock: Clock
) -> None:
    log = MemoryLog()
    cut = MemoryLog(log)
    async with (
        await follow(cut, tmp_path / "a", clock, limits=LIMITS) as a,
        await follow(log, tmp_path / "b", clock, limits=LIMITS) as b,
    ):
        before = dump(tmp_path / "b")["meta"]
        cut.away = True
        clock.advance(2)
        await b.sweep()
        assert dict(before)["log.holder"] == dict(dump(tmp_path / "b")["meta"])["log.holder"]
        clock.advance(2)
        await b.sweep()
        after = dict(dump(tmp_path / "b")["meta"])
        assert after["log.term"] == 2 and after["log.holder"] != dict(before)["log.holder"]
        cut.away = False
        async with log.changed:
            log.changed.notify_all()
        await b.append_updates(updates("x"))
        await level(a, b)
        await a.prune()  # asks the new holder


async def test_a_worker_that_reports_while_it_is_said_to_be_silent_is_not_lost(
    servers: tuple[Journal, Journal], clock: Clock
) -> None:
    a, b = servers
    worker = JobReport(job_id="j", status="running")
    worker.heartbeat = worker.heartbeat.resolution * 1_000_000
    await a.report_jobs([worker])
    for _ in range(20):
        clock.advance(1)
        _, _ = await asyncio.gather(b.report_jobs([worker]), a.prune())
    job = await a.job("j")
    assert job is not None and job.status == "running" and not job.stalled


async def test_clocks_an_hour_apart_lose_no_job_and_no_record(tmp_path: Path) -> None:
    log = MemoryLog()
    early, late = Clock(), Clock()
    late.advance(3600)
    options = JournalOptions(retention=Retention(max_age=60.0))
    worker = JobReport(job_id="j", status="running")
    worker.heartbeat = worker.heartbeat.resolution * 5_000_000
    async with (
        await follow(log, tmp_path / "a", early, options=options, limits=LIMITS) as a,
        await follow(MemoryLog(log), tmp_path / "b", late, options=options, limits=LIMITS) as b,
    ):
        since = early.now
        for n in range(5):
            await a.append_updates(updates(f"early {n}"))
            await b.append_updates(updates(f"late {n}"))
            await (a, b)[n % 2].report_jobs([worker])
            early.advance(1)
            late.advance(1)
            await b.prune()
        job = await a.job("j")
        assert job is not None and job.status == "running" and not job.stalled
        await level(a, b)
        for moment in (since, early.now, late.now):
            start = Start(since=moment)
            assert texts(await stored(a, topics(), start)) == texts(
                await stored(b, topics(), start)
            )


async def test_the_settings_of_who_has_the_lease_hold_for_all(tmp_path: Path, clock: Clock) -> None:
    log = MemoryLog()
    few = JournalOptions(live_jobs=1)
    async with (
        await follow(log, tmp_path / "a", clock, options=few),
        await follow(MemoryLog(log), tmp_path / "b", clock) as b,
    ):
        await b.report_jobs([JobReport(job_id="one")])
        with pytest.raises(LimitError):
            await b.report_jobs([JobReport(job_id="two")])


async def test_rules_are_applied_every_ten_seconds_whoever_has_the_lease(
    tmp_path: Path, clock: Clock
) -> None:
    rules = (RetentionRule(pattern="few", keep_last=3),)
    options = JournalOptions(retention=Retention(rules=rules))
    shared = MemoryLog()

    async def held(journal: Journal) -> int:
        await journal.prune()
        return len(await stored(journal, topics()))

    async with await follow(shared, tmp_path / "a", clock, options=options) as a:
        await a.append_updates(updates(*"12345", topic="few"))
        assert await held(a) == 3
        await a.append_updates(updates(*"678", topic="few"))
        clock.advance(9)
        assert await held(a) == 6
    async with await follow(shared, tmp_path / "a", clock, options=options) as a:
        assert await held(a) == 6
        clock.advance(1)
        assert await held(a) == 3


async def test_a_server_that_is_cut_off_says_so_and_comes_back(
    tmp_path: Path, clock: Clock
) -> None:
    log = MemoryLog()
    async with await follow(log, tmp_path / "a", clock, limits=LIMITS) as journal:
        log.away = True
        waiting = asyncio.ensure_future(journal.append_updates(updates("x"), ProducerId("p", 1)))
        await asyncio.sleep(0)  # it is on its way
        for _ in range(3):
            clock.advance(1)
            with suppress(StoreError):
                await journal.measure()
        with pytest.raises(StoreError, match="not known"):
            await waiting
        with pytest.raises(StoreError):
            await journal.append_updates(updates("y"))
        log.away = False
        async with log.changed:
            log.changed.notify_all()
        await journal.measure()
        assert (await journal.append_updates(updates("x"), ProducerId("p", 1))).count == 1
        assert texts(await stored(journal, topics())) == ["x"]


async def test_the_status_tells_what_is_here_while_the_log_does_not_answer(
    tmp_path: Path, clock: Clock
) -> None:
    log = MemoryLog()
    async with await follow(log, tmp_path / "a", clock, limits=LIMITS) as journal:
        await journal.append_updates(updates("x"))
        log.silent = True
        async with asyncio.timeout(4):  # a caller waits five seconds
            assert (await journal.status()).durability.startswith(
                "replicated, the log does not answer"
            )
        log.silent = False
        assert "entries behind the log" in (await journal.status()).durability


async def test_records_that_another_process_has_made_go_the_same_way(
    servers: tuple[Journal, Journal], clock: Clock
) -> None:
    a, b = servers
    assert isinstance(a, ReplicatedJournal)
    rows = update_rows(updates("x", "y", "z"), 0, clock())
    batches = [(rows[:2], ProducerId("p", 1)), (rows[2:], ProducerId("p", 2)), (rows[:1], None)]
    stored_at = await a.submit(a.rows_request(Stream.UPDATES, batches, 100))
    assert stored_at == [(1, 2), (3, 1), (4, 1)]
    lines = log_rows([log("l", "warn")], 0, clock())
    assert await a.submit(a.rows_request(Stream.LOGS, [(lines, None)], 10)) == [(1, 1)]
    assert (await b.append_updates(updates("z"), ProducerId("p", 2))).first == 3
    assert texts(await stored(b, topics())) == ["x", "y", "z", "x"]
    assert texts(await stored(b, logs())) == ["l"]


async def test_a_run_that_is_too_much_for_an_entry_is_taken_one_by_one(
    servers: tuple[Journal, Journal], clock: Clock
) -> None:
    a, _ = servers
    assert isinstance(a, ReplicatedJournal)
    large = "x" * 3_000_000
    batches = [(updates(large), ProducerId("p", n)) for n in (1, 2)]
    assert a.append_runs_soon(batches) is None
    feed = Feed(a)
    ours, theirs = socket.socketpair()
    await feed.join(ours)
    worker = await FollowerJournal.join(
        theirs, JournalOptions(), clock, lambda: clock().timestamp()
    )
    async with worker:
        bad = [Update(topic="t", message="\ud800")]
        run = worker.append_runs_soon([*batches, (bad, None), (updates("last"), None)])
        assert run is not None
        *told, none, last = await run
        assert told == [(1, 1), (2, 1)] and last == (3, 1)
        assert isinstance(none, InvalidArgumentError)
    await feed.close()
