"""What goes on beside the writes: it ends by nothing that is stored, and by no mistake."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from streamkit.config import JournalOptions, Retention, RetentionRule
from streamkit.errors import InternalError, InvalidArgumentError
from streamkit.generated.streamservice import JobReport
from streamkit.journal import ProducerId, Selector, Start, Stream, open_journal
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.journal.sqlite.requests import Sweep
from streamkit.journal.sqlite.retention import Retention as StoreRetention
from streamkit.journal.sqlite.store import Store
from streamkit.testing.journal.support import (
    Clock,
    jobs,
    log,
    logs,
    pass_time,
    stored,
    texts,
    topics,
    updates,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


async def opened(
    path: str, options: JournalOptions | None = None, **clocks: object
) -> SqliteJournal:
    journal = await open_journal(path, options, **clocks)  # type: ignore[arg-type]  # clocks of the test's own
    assert isinstance(journal, SqliteJournal)
    return journal


def change(path: str, *statements: str) -> None:
    """What somebody does to a store with another tool."""
    tool = sqlite3.connect(path)
    for statement in statements:
        tool.execute(statement)
    tool.commit()
    tool.close()


async def test_no_stored_job_stops_the_watch_over_the_others(path: str) -> None:
    clock = Clock()
    options = JournalOptions(retention=Retention(max_age=60.0))
    second = timedelta(seconds=1)
    async with await opened(path, options, clock=clock) as journal:
        for name in ("endless", "broken", "mortal"):
            await journal.report_jobs([JobReport(job_id=name, heartbeat=second)])
        await journal.append_updates(updates("a"))
    change(
        path,
        "update jobs set heartbeat = 9e300 where job_id = 'endless'",
        "update jobs set created_at = 'yesterday' where job_id = 'broken'",
    )
    async with await opened(path, options, clock=clock) as journal:
        await pass_time(journal, clock, 63)
        assert (await journal.job("mortal")).status == "lost"  # type: ignore[union-attr]  # there
        assert (await journal.job("endless")).status == "running"  # type: ignore[union-attr]  # there
        assert journal.bounds(Stream.UPDATES).oldest == 2
        assert not journal.faults


async def test_a_sweep_that_fails_is_told_and_tried_again(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changed = asyncio.Event()
    broken = True
    sweep = Store._sweep

    def fail(store: Store, request: Sweep) -> bool:
        if broken:
            raise ZeroDivisionError("a mistake of ours")
        return sweep(store, request)

    monkeypatch.setattr(Store, "_sweep", fail)
    caplog.set_level(logging.INFO, "streamkit.journal")
    async with await opened(path) as journal, asyncio.timeout(20):
        journal.on_faults = changed.set
        await changed.wait()
        assert journal.faults == ("sweeping the journal: ZeroDivisionError: a mistake of ours",)
        await journal.append_updates(updates("a"))
        changed.clear()
        broken = False
        await changed.wait()
        assert not journal.faults
    assert len([r for r in caplog.records if r.exc_info]) == 1
    assert caplog.messages[-1] == "sweeping the journal works again"


async def test_a_mistake_while_writing_fails_the_request_and_nothing_else(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store._write

    def fail(store: Store, group: object) -> None:
        if "broken" in repr(group):
            raise ZeroDivisionError
        write(store, group)  # type: ignore[arg-type]  # the group is one

    monkeypatch.setattr(Store, "_write", fail)
    async with await opened(path) as journal:
        await journal.append_updates(updates("a"), ProducerId("p", 1))
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            await journal.append_updates(updates("broken"), ProducerId("p", 2))
        appended = await journal.append_updates(updates("b"), ProducerId("p", 2))
        assert appended.first == 2
        assert texts(await stored(journal, topics())) == ["a", "b"]


async def test_a_reader_that_stays_is_told_of_when_the_log_is_too_large(path: str) -> None:
    pinned = asyncio.Event()
    options = JournalOptions(retention=Retention(max_bytes=8 << 20))
    async with await opened(path, options) as journal, asyncio.timeout(60):
        journal.on_pinned = pinned.set
        await journal.append_updates(updates("x" * 1000) * 100)
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        cursor = reader.execute("select message from updates")
        cursor.fetchone()
        while not pinned.is_set():
            await journal.append_updates(updates("x" * 1000) * 500)
            await journal.sweep()
        assert Path(f"{path}-wal").stat().st_size < 8 << 20
        cursor.close()
        reader.close()
        pinned.clear()
        await journal.append_updates(updates("x" * 1000) * 500)
        await journal.sweep()
        assert Path(f"{path}-wal").stat().st_size < 4 << 20
        assert not pinned.is_set()


FIRST_VERSION = (
    "drop table log_levels",
    "alter table dedupe drop column last",
    "alter table jobs drop column traceparent",
    "alter table job_events drop column traceparent",
    "delete from meta where key like 'bytes.%' or key = 'levels.from'",
    "pragma user_version = 1",
)
"""Makes a store what the first version wrote."""


async def test_a_store_of_the_first_version_is_filled_in_step_by_step(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.journal.sqlite.levels._STEP", 100)
    levels = ("debug", "info", "warn", "error")
    options = JournalOptions(ring_records=1)
    async with await opened(path, options) as journal:
        for n in range(1000):
            await journal.append_logs([log(f"{n}", levels[n % 4] if n % 50 < 4 else "info")])
        await journal.append_updates(updates("m" * 100) * 50)
        await journal.report_jobs([JobReport(job_id="j", error="e" * 1000)])
    asked: list[tuple[Callable[[], Selector], Start]] = [
        (lambda: logs(level=3), Start(last=7)),
        (lambda: logs(level=2), Start(last=900)),
        (lambda: logs(level=1), Start(last=900)),
        (lambda: logs(level=2), Start(all=True)),
        (lambda: logs("api", level=3), Start(last=7)),
    ]

    async def answers(journal: SqliteJournal) -> list[list[str]]:
        return [texts(await stored(journal, what(), start)) for what, start in asked]

    async with await opened(path, options) as journal:
        expected = await answers(journal)
    assert len(expected[0]) == 7
    change(path, *FIRST_VERSION)
    async with await opened(path, options) as journal:
        for steps in range(20):
            assert await answers(journal) == expected, steps
            if steps == 5:
                await journal.append_logs([log("new", "error")])
                expected = [
                    [*found[-limit:], "new"]
                    for found, limit in zip(expected, (6, 899, 899, 10**9, 6), strict=True)
                ]
            await journal.append_updates(updates("x"))
        await journal.sweep()
        assert await answers(journal) == expected
    async with await opened(path, options) as journal:
        assert await answers(journal) == expected
        assert len(await stored(journal, jobs())) == 1


async def test_sizes_are_known_without_counting(path: str) -> None:
    options = JournalOptions(retention=Retention(max_bytes=1 << 20))

    async def sizes(journal: SqliteJournal) -> dict[str, int]:
        await journal.append_updates([])
        tool = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        found = dict(
            tool.execute("select substr(key, 7), value from meta where key like 'bytes.%'")
        )
        tool.close()
        return found

    async with await opened(path, options) as journal:
        for n in range(30):
            await journal.append_updates(updates("x\0y" * 1000) * 10, ProducerId("p", n + 1))
            await journal.append_logs([log("\N{SNOWMAN}" * 1000)] * 10)
            await journal.report_jobs([JobReport(job_id=f"j{n % 7}", error="e" * (n + 1) * 10)])
            await journal.sweep()
        known = await sizes(journal)
    change(path, "delete from meta where key like 'bytes.%'")
    async with await opened(path, options) as journal:
        await journal.append_updates(updates(""))  # an estimate is kept with the next write
        counted = await sizes(journal)
    assert known.keys() == counted.keys()
    for table, size in known.items():
        assert abs(counted[table] - size) <= max(200, counted[table] // 50), table


async def test_remembered_requests_are_bounded_in_bytes(path: str) -> None:
    options = JournalOptions(remembered_bytes=20_000, windows_bytes=10_000)
    async with await opened(path, options) as journal:
        for n in range(600):
            await journal.append_updates(updates("a"), ProducerId(f"p{n % 3}", n + 1))
        await journal.sweep()
        first = journal.bounds(Stream.UPDATES).newest
        repeat = await journal.append_updates(updates("a"), ProducerId("p2", 600))
        assert repeat.first == 600
        assert journal.bounds(Stream.UPDATES).newest == first
    tool = sqlite3.connect(path)
    (kept,) = tool.execute("select count(*) from dedupe").fetchone()
    tool.close()
    assert 10 < kept < 300


async def test_a_page_of_a_level_is_found_wherever_the_others_are(path: str) -> None:
    options = JournalOptions(ring_records=1)
    async with await opened(path, options) as journal:
        for n in range(20):
            await journal.append_logs([log("noise", "debug")] * 500)
            await journal.append_logs([log(f"e{n}", "error"), log(f"w{n}", "warn")])
        found = texts(await stored(journal, logs(level=2), Start(last=6)))
        assert found == ["e17", "w17", "e18", "w18", "e19", "w19"]
        async with aclosing(journal.read(logs(level=3), Start(all=True), follow=False)) as batches:
            sizes = [len(batch.items) async for batch in batches]
        assert sizes == [0, 20]  # the place, then all in one page


async def test_a_batch_that_fails_is_stored_again_without_its_bad_part(path: str) -> None:
    async with await opened(path) as journal:
        requests = [
            journal.append_updates(
                updates("\ud800" if n == 7 else f"{n}"), ProducerId(f"p{n % 5}", n + 1)
            )
            for n in range(20)
        ]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert isinstance(answers[7], InvalidArgumentError)
        kept = [str(n) for n in range(20) if n != 7]
        assert texts(await stored(journal, topics())) == kept
        for n, answer in enumerate(answers):
            if n != 7:
                again = await journal.append_updates(updates("x"), ProducerId(f"p{n % 5}", n + 1))
                assert again == answer
        assert (await journal.append_updates(updates("y"), ProducerId("p2", 8))).first == 20
        assert texts(await stored(journal, topics())) == [*kept, "y"]


async def test_age_is_exact_within_the_second_of_a_mark(path: str) -> None:
    clock = Clock()
    options = JournalOptions(retention=Retention(max_age=60.0))
    async with await opened(path, options, clock=clock) as journal:
        await journal.append_updates(updates("a"))  # marks its second
        clock.advance(0.5)
        await journal.append_updates(updates("b"))
        clock.advance(59.6)  # the mark is older than a minute, "b" is not
        await journal.sweep()
        assert texts(await stored(journal, topics())) == ["a", "b"]
        clock.advance(0.9)  # the second is over
        await journal.sweep()
        assert await stored(journal, topics()) == []


async def test_retention_goes_in_small_steps_between_the_writes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    options = JournalOptions(retention=Retention(max_age=60.0))
    removed: list[int] = []
    remove = StoreRetention._remove

    def noted(retention: StoreRetention, stream: Stream, cut: int, why: str) -> None:
        removed.append(cut - retention._oldest[stream])
        remove(retention, stream, cut, why)

    monkeypatch.setattr(StoreRetention, "_remove", noted)
    async with await opened(path, options, clock=clock) as journal:
        await journal.append_updates(updates("x") * 9000)
        clock.advance(62)
        await journal.sweep()
        assert journal.bounds(Stream.UPDATES).oldest == 9001
    assert removed == [2000, 2000, 2000, 2000, 1000]


async def test_a_rule_in_bytes_counts_only_what_is_still_there(path: str) -> None:
    clock = Clock()
    rules = (RetentionRule(pattern="a.>", max_bytes=100_000),)
    options = JournalOptions(retention=Retention(max_age=60.0, rules=rules))
    async with await opened(path, options, clock=clock) as journal:
        for _ in range(20):  # 60 KB at a time, each of which age has removed before the next comes
            await journal.append_updates(updates("x" * 1000, topic="a.x") * 60)
            await journal.sweep()
            assert len(await stored(journal, topics("a.>"))) == 60
            clock.advance(100)
            await journal.sweep()
        await journal.append_updates(updates("x" * 1000, topic="a.x") * 300)
        clock.advance(20)
        await journal.sweep()
        assert 60 < len(await stored(journal, topics("a.>"))) <= 100
