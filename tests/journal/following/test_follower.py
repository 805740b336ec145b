"""What holds between processes that read and the one that writes, beside the contract."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamkit.config import JournalOptions, WorkerLimits
from streamkit.errors import ConnectError, InvalidArgumentError, StreamkitError
from streamkit.generated.streamservice import Update
from streamkit.journal import Appended, Position, ProducerId, Start, Stream, open_journal
from streamkit.journal.base import now
from streamkit.journal.following.feed import Feed
from streamkit.journal.following.follower import FollowerJournal
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.testing.journal.support import (
    Clock,
    following,
    log,
    stored,
    texts,
    topics,
    updates,
)
from tests.journal.replicated.logs import MemoryLog, dump, follow


class Several:
    """One journal, and those that follow it."""

    def __init__(self, journal: SqliteJournal, feed: Feed) -> None:
        self.journal = journal
        self.feed = feed

    async def join(self, **options: int) -> FollowerJournal:
        ours, theirs = socket.socketpair()
        await self.feed.join(ours)
        given = JournalOptions(**options)  # type: ignore[arg-type]  # whole numbers only
        return await FollowerJournal.join(theirs, given, now, time.monotonic)


@asynccontextmanager
async def several(tmp_path: Path, limits: WorkerLimits | None = None) -> AsyncIterator[Several]:
    async with await open_journal(str(tmp_path / "store.db")) as journal:
        assert isinstance(journal, SqliteJournal)
        feed = Feed(journal, limits)
        yield Several(journal, feed)
        await feed.close()


async def test_one_that_falls_behind_goes_on_from_the_file(tmp_path: Path) -> None:
    limits = WorkerLimits(behind_bytes=1)
    async with several(tmp_path, limits) as all_of_them:
        ours, theirs = socket.socketpair()
        follower = await all_of_them.feed.join(ours)
        for number in range(20):  # while it does not listen
            for topic in ("big.a", "small"):
                text = f"{number} {'x' * 100_000}"
                await all_of_them.journal.append_updates(updates(text, topic=topic))
        async with await FollowerJournal.join(
            theirs, JournalOptions(), now, time.monotonic
        ) as slow:
            async with following(slow, topics("big.*"), Start(all=True)) as reader:
                await reader.until(20)
                await all_of_them.journal.append_updates(updates("20", topic="big.b"))
                await reader.until(21)
                read = [text.split()[0] for text in texts(reader.entries)]
                assert read == list(map(str, range(21)))
            assert slow.bounds(Stream.UPDATES).newest == 41
            assert follower.jumps == 1


async def test_what_one_was_acknowledged_every_other_one_reads(tmp_path: Path) -> None:
    async with (
        several(tmp_path) as all_of_them,
        await all_of_them.join() as one,
        await all_of_them.join() as other,
    ):
        for number in range(1, 30):
            written = await one.append_updates(updates(str(number)))
            assert written.first == number
            place = Start(after=Position(other.epoch, number))
            assert await stored(other, topics(), place) == []
            assert texts(await stored(other, topics(), Start(last=1))) == [str(number)]


async def test_a_repeat_by_another_one_gets_the_first_answer(tmp_path: Path) -> None:
    async with (
        several(tmp_path) as all_of_them,
        await all_of_them.join() as one,
        await all_of_them.join() as other,
    ):
        first = await one.append_updates(updates("a"), ProducerId("p", 1))
        await one.append_updates(updates("b"), ProducerId("p", 2))
        assert await other.append_updates(updates("a"), ProducerId("p", 1)) == first
        runs = [(updates("a"), ProducerId("p", 1)), (updates("c"), ProducerId("q", -1))]
        soon = other.append_runs_soon(runs)
        assert soon is not None
        again, refused = await soon
        assert again == (first.first, first.count)
        assert isinstance(refused, InvalidArgumentError)
        assert texts(await stored(other, topics())) == ["a", "b"]


async def test_requests_are_stored_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async with (
        several(tmp_path) as all_of_them,
        await all_of_them.join(waiting_bytes=4000) as one,
    ):
        await asyncio.gather(*(one.append_updates(updates(str(n))) for n in range(100)))
        assert texts(await stored(one, topics())) == [str(n) for n in range(100)]


async def test_faults_are_told_and_end(tmp_path: Path) -> None:
    async with several(tmp_path) as all_of_them, await all_of_them.join() as one:
        changed = asyncio.Event()
        one.on_faults = changed.set
        store = Path(all_of_them.journal.path)
        store.rename(tmp_path / "moved.db")
        async with asyncio.timeout(10):
            await changed.wait()
        assert "removed" in one.faults[0]
        with pytest.raises(StreamkitError, match="removed"):
            await one.append_updates(updates("a"))
        changed.clear()
        (tmp_path / "moved.db").rename(store)
        async with asyncio.timeout(10):
            await changed.wait()
        assert one.faults == ()


async def test_without_the_owner_nothing_is_written_and_everything_read(tmp_path: Path) -> None:
    async with several(tmp_path) as all_of_them, await all_of_them.join() as one:
        await one.append_updates(updates("a"))
        gone = asyncio.Event()
        one.on_owner_lost = gone.set
        await all_of_them.feed.close()
        async with asyncio.timeout(10):
            await gone.wait()
        with pytest.raises(ConnectError, match="gone"):
            await one.append_updates(updates("b"))
        assert (await one.job("x")) is None
        place = Start(after=Position(one.epoch, 0))
        assert texts(await stored(one, topics(), place)) == ["a"]


async def test_workers_of_several_servers_write_to_one_log(tmp_path: Path) -> None:
    """Rows that a worker has made go through the log as messages, and come out the same."""
    clock, shared = Clock(), MemoryLog()
    folders = (tmp_path / "a", tmp_path / "b")
    async with (
        await follow(shared, folders[0], clock) as one,
        await follow(MemoryLog(shared), folders[1], clock) as other,
    ):
        feed = Feed(one)
        worker = await Several(one, feed).join()
        async with worker:
            given = Update(topic="t", message="a", metadata={"k": "v"})
            assert await worker.append_updates([given], ProducerId("p", 1)) == Appended(1, 1)
            assert await worker.append_logs([log("b", "warn")]) == Appended(1, 1)
            runs = worker.append_runs_soon([([Update("t", "c")], None), ([Update("t", "d")], None)])
            assert runs is not None and await runs == [(2, 1), (3, 1)]
            assert await other.append_updates([given], ProducerId("p", 1)) == Appended(1, 1)
            assert (await worker.status()).durability.startswith("replicated")
            assert texts(await stored(worker, topics())) == ["a", "c", "d"]
        await feed.close()
    ours, theirs = map(dump, folders)
    assert (ours["updates"], ours["logs"]) == (theirs["updates"], theirs["logs"])
    [update] = [row for row in ours["updates"] if row[0] == 1]
    assert (update[1], *update[3:]) == ("t", "a", '{"k":"v"}')
