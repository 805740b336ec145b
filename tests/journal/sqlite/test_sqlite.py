"""What only the SQLite engine does: files, locks, restarts, full disks, other people's tools."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from streamkit.config import JournalOptions, Retention
from streamkit.errors import AlreadyExistsError, InvalidArgumentError, StoreError
from streamkit.generated.streamservice import JobReport, LogEntry, Update
from streamkit.journal import Appended, Journal, ProducerId, Start, Stream, open_journal
from streamkit.journal.sqlite import schema
from streamkit.journal.sqlite.journal import SqliteJournal
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


async def refused(path: str) -> StoreError:
    with pytest.raises(StoreError) as refusal:
        await open_journal(path)
    assert "\n" not in str(refusal.value)
    return refusal.value


async def test_a_restart_keeps_everything(path: str) -> None:
    clock = Clock()
    async with await open_journal(path, clock=clock) as journal:
        epoch = journal.epoch
        await journal.append_updates(updates("a", "b"), ProducerId("p", 1))
        await journal.append_logs([log("l")])
        await journal.report_jobs([JobReport(job_id="j", percentage=40, total=9)])
        before = await journal.job("j")
    async with await open_journal(f"sqlite:///{path}", clock=clock) as journal:
        assert journal.epoch == epoch
        assert await journal.append_updates(updates("a", "b"), ProducerId("p", 1)) == Appended(1, 2)
        assert await journal.append_updates(updates("c")) == Appended(3, 1)
        assert texts(await stored(journal, topics())) == ["a", "b", "c"]
        assert await journal.job("j") == before
        (state,) = await journal.report_jobs([JobReport(job_id="j", percentage=10)])
        assert (state.percentage, state.sequence) == (40, 1)
        with pytest.raises(AlreadyExistsError):
            await journal.report_jobs([JobReport(job_id="j")], create=True)
    async with await open_journal(f"{path}2") as journal:
        assert journal.epoch != epoch


async def test_nothing_is_left_beside_a_closed_store(path: str, tmp_path: Path) -> None:
    async with await open_journal(path) as journal:
        await journal.append_updates(updates("a"))
        await stored(journal, topics())
        assert len(list(tmp_path.iterdir())) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["store.db"]


async def test_numbers_are_not_given_twice_after_a_full_trim_and_a_restart(path: str) -> None:
    clock = Clock()
    options = JournalOptions(retention=Retention(max_age=60.0))
    async with await open_journal(path, options, clock=clock) as journal:
        await journal.append_updates(updates(*"abc"))
        clock.advance(100)
        await journal.sweep()  # type: ignore[attr-defined]  # the SQLite journal's
    async with await open_journal(path, options, clock=clock) as journal:
        assert journal.bounds(Stream.UPDATES) == (4, 3)
        assert await journal.append_updates(updates("d")) == Appended(4, 1)


async def left_open(path: str, **changes: object) -> None:
    """Make a closed store look like one that was left open; changes are of its meta table."""
    with sqlite3.connect(path) as tool:
        for key, value in {"open": 1, **changes}.items():
            tool.execute("update meta set value = ? where key = ?", (value, key))
    tool.close()


async def test_a_machine_that_died_may_have_undone_the_end(path: str) -> None:
    async with await open_journal(path) as journal:
        epoch = journal.epoch
        await journal.append_updates(updates("a"))
    await left_open(path)  # the process died, the machine did not
    async with await open_journal(path) as journal:
        assert journal.epoch == epoch
    await left_open(path, open=0, boot="another")  # closed before the machine went down
    async with await open_journal(path) as journal:
        assert journal.epoch == epoch
    await left_open(path, boot="another", durability="full")  # every commit was on the disk
    async with await open_journal(path) as journal:
        assert journal.epoch == epoch
    await left_open(path, boot="another")
    async with await open_journal(path) as journal:
        assert journal.epoch != epoch
        assert texts(await stored(journal, topics())) == ["a"]


async def test_silence_does_not_count_while_the_server_is_away(path: str) -> None:
    clock = Clock()
    async with await open_journal(path, clock=clock) as journal:
        await journal.report_jobs([JobReport(job_id="j", heartbeat=timedelta(seconds=10))])
    clock.advance(1000)
    async with await open_journal(path, clock=clock) as journal:
        await pass_time(journal, clock, 10)
        assert not (await journal.job("j")).stalled  # type: ignore[union-attr]  # there
        await pass_time(journal, clock, 50)
        assert (await journal.job("j")).status == "lost"  # type: ignore[union-attr]  # there


async def test_any_sqlite_tool_can_read_the_tables(path: str) -> None:
    async with await open_journal(path) as journal:
        await journal.append_logs([log("a"), log("b", "warn"), log("c", "warn", "web")])
        await journal.append_logs([LogEntry(level="info", message="x", fields={"user": "eve"})])
        await journal.append_updates([Update(topic="t", message="m", metadata={"k": "v"})])
        await journal.report_jobs([JobReport(job_id="j", percentage=30)])
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as tool:  # while the server runs
            ask = tool.execute
            grouped = ask("select level, count(*) from logs group by level order by level")
            assert grouped.fetchall() == [("info", 2), ("warn", 2)]
            recent = "select count(*) from logs where time > datetime('now', '-1 minute')"
            assert ask(recent).fetchone() == (4,)
            assert ask("select count(*) from logs where severity >= 2").fetchone() == (2,)
            user = "select json_extract(fields, '$.user') from logs where fields is not null"
            assert ask(user).fetchall() == [("eve",)]
            assert ask("select topic, metadata from updates").fetchall() == [("t", '{"k":"v"}')]
            assert ask("select job_id, status, percentage from jobs").fetchall() == [
                ("j", "running", 30)
            ]
            assert ask("select count(*) from job_events").fetchone() == (1,)
        tool.close()


async def test_a_store_is_for_one_server(path: str) -> None:
    async with await open_journal(path):
        error = await refused(path)
        assert str(os.getpid()) in error.message
        assert "stop that server" in error.hint
    async with await open_journal(path) as journal:
        await journal.append_updates(updates("a"))


async def test_a_store_is_for_one_process(path: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from streamkit.journal import open_journal\n"
        "try: asyncio.run(open_journal(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    async with await open_journal(path):
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, path, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await other.communicate()
    assert output.decode().startswith("StoreError")
    assert f"in use by another server (process {os.getpid()})" in output.decode()


async def test_a_store_of_a_newer_version_is_refused(path: str) -> None:
    async with await open_journal(path):
        pass
    with sqlite3.connect(path) as tool:
        tool.execute(f"pragma user_version = {schema.VERSION + 1}")
    tool.close()
    error = await refused(path)
    assert "newer streamkit" in error.message
    assert "upgrade" in error.hint


async def test_an_older_store_is_brought_up_to_date(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_journal(path) as journal:
        await journal.append_updates(updates("a"))
    added = "create table extra(x); insert into extra select count(*) from updates;"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    for _ in range(2):
        async with await open_journal(path) as journal:
            assert texts(await stored(journal, topics())) == ["a"]
    with sqlite3.connect(path) as tool:
        assert tool.execute("select x from extra").fetchall() == [(1,)]
        assert tool.execute("pragma user_version").fetchone() == (schema.VERSION,)
    tool.close()


async def test_a_migration_that_fails_changes_nothing(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_journal(path):
        pass
    with monkeypatch.context() as patch:
        broken = "create table extra(x); insert into missing values(1);"
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        assert "missing" in (await refused(path)).message
    async with await open_journal(path) as journal:
        await journal.append_updates(updates("a"))
    with sqlite3.connect(path) as tool:
        found = tool.execute("select name from sqlite_master where name = 'extra'").fetchall()
    tool.close()
    assert found == []


async def test_files_that_are_no_store_are_refused(path: str, tmp_path: Path) -> None:
    Path(path).write_text("not a database, but long enough to be looked at as one " * 20)
    assert "not an SQLite database" in (await refused(path)).message
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as tool:
        tool.execute("create table mine(x)")
    tool.close()
    error = await refused(str(other))
    assert "not a streamkit store" in error.message
    assert "--database" in error.hint
    assert "does not exist" in (await refused(str(tmp_path / "no" / "where.db"))).message
    assert "cannot be opened" in (await refused(str(tmp_path))).message
    with pytest.raises(InvalidArgumentError):
        await open_journal("mysql://host/db")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.db", "store.db"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_path_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be opened for writing" in (await refused(str(tmp_path / "store.db"))).message
    tmp_path.chmod(0o700)


async def test_a_full_disk_refuses_writes_and_nothing_else(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(path: str, options: JournalOptions) -> sqlite3.Connection:
        connection = schema.open_store(path, options)
        connection.execute("pragma max_page_count = 100")
        return connection

    monkeypatch.setattr("streamkit.journal.sqlite.store.open_store", limited)
    clock = Clock()
    options = JournalOptions(retention=Retention(max_age=60.0))
    async with await open_journal(path, options, clock=clock) as journal:
        stored_count = 0
        with pytest.raises(StoreError, match="disk is full") as full:
            for _ in range(1000):
                await journal.append_updates(updates("x" * 1000, "y" * 1000))
                stored_count += 2
        assert path not in str(full.value)  # the message goes to clients
        assert stored_count > 100
        with pytest.raises(StoreError, match="disk is full"):
            await journal.append_logs([log("z" * 100_000)])
        assert journal.bounds(Stream.UPDATES).newest == stored_count
        assert len(await stored(journal, topics())) == stored_count
        clock.advance(100)
        await journal.sweep()  # type: ignore[attr-defined]  # the SQLite journal's
        assert await journal.append_updates(updates("room again")) == Appended(stored_count + 1, 1)


async def test_one_request_that_fails_does_not_take_others_with_it(path: str) -> None:
    async with await open_journal(path) as journal:
        requests = [
            journal.append_updates(updates("\ud800" if n == 7 else f"{n}")) for n in range(20)
        ]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert isinstance(answers[7], InvalidArgumentError)
        found = await stored(journal, topics())
        assert texts(found) == [str(n) for n in range(20) if n != 7]
        assert [e.sequence for e in found] == list(range(1, 20))


async def test_big_records_are_read_in_small_pages(path: str) -> None:
    async with await open_journal(path, JournalOptions(ring_records=1)) as journal:
        for size in (10, 3_000_000, 100_000, 20_000_000):
            await journal.append_updates([Update(topic="t", message="x" * size)] * 3)
        largest = 0
        count = 0
        async for batch in journal.read(topics(), Start(all=True), follow=False):
            count += len(batch.items)
            total = sum(map(len, texts(batch.items)))
            largest = max(largest, total if len(batch.items) > 1 else 0)
        assert count == 12
        assert largest < 1_000_000


async def test_many_writers_wait_before_a_full_queue(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.journal.sqlite.writer._QUEUE", 10)
    async with await open_journal(path) as journal:
        assert isinstance(journal, SqliteJournal)
        writes = [asyncio.create_task(journal.append_updates(updates(*"abc"))) for _ in range(99)]
        await asyncio.sleep(0)
        assert len(journal._writer._queue) <= 10
        await asyncio.gather(*writes)
        assert journal.bounds(Stream.UPDATES).newest == 297


async def test_full_durability_is_passed_on(path: str) -> None:
    async with await open_journal(path, JournalOptions(durability="full")) as journal:
        await journal.append_updates(updates("a"))
        assert (await journal.status()).durability == "full"


async def test_continuous_writes_do_not_fill_the_disk(path: str) -> None:
    most = 4 << 20
    sizes = []
    published = updates("x" * 500) * 200
    lines = [log("y" * 200)] * 50

    async def write(journal: Journal) -> None:
        for _ in range(20):
            await journal.append_updates(published)
            await journal.append_logs(lines)
            sizes.append((await journal.status()).bytes)

    options = JournalOptions(retention=Retention(max_bytes=most), ring_records=1000)
    async with await open_journal(path, options) as journal:
        for _ in range(2):
            await asyncio.gather(*(write(journal) for _ in range(8)), journal.sweep())  # type: ignore[attr-defined]  # the SQLite journal's
            await journal.sweep()  # type: ignore[attr-defined]  # the SQLite journal's
        kept = journal.bounds(Stream.UPDATES)
        written = kept.newest * 500
        print(f"wrote {written >> 20} MiB, kept {kept}, largest {max(sizes) / 2**20:.1f} MiB")
        assert written > 6 * most
        assert max(sizes) < 5 * most // 2  # what is kept, what one commit adds, and the WAL
        assert len(await stored(journal, topics())) == kept.newest - kept.oldest + 1


async def test_what_age_removes_is_given_back_to_the_disk(path: str) -> None:
    clock = Clock()
    options = JournalOptions(retention=Retention(max_age=60.0))
    async with await open_journal(path, options, clock=clock) as journal:
        for _ in range(20):
            await journal.append_updates(updates("x" * 1000) * 500)
        clock.advance(100)
        await journal.append_updates(updates("last"))
        before = (await journal.status()).bytes
        await journal.sweep()  # type: ignore[attr-defined]  # the SQLite journal's
        after = (await journal.status()).bytes
        print(f"{before >> 10} KiB before, {after >> 10} KiB after")
        assert before > 10 << 20
        assert after < 2 << 20
        assert texts(await stored(journal, topics())) == ["last"]


async def test_jobs_and_logs_survive_odd_text(path: str) -> None:
    odd = 'a\x00b "quoted" \\u0000 \n'
    async with await open_journal(path) as journal:
        await journal.report_jobs([JobReport(job_id=odd, current_step=odd, error=odd)])
        await journal.append_logs([log(odd, service=odd)])
        state = await journal.job(odd)
        assert state is not None
        assert (state.current_step, state.error) == (odd, odd)
        (event,) = await stored(journal, jobs(odd))
        assert event.message == state
        assert texts(await stored(journal, logs(odd))) == [odd]
