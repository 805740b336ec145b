"""A backup while others write, and what is made of it: a beginning of what was stored, no more."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from collections import namedtuple
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from streamkit.errors import (
    ConnectError,
    LimitError,
    PreconditionError,
    StoreError,
    UnimplementedError,
)
from streamkit.generated.streamservice import (
    AdminServiceBase,
    BackupChunk,
    BackupRequest,
    Update,
)
from streamkit.journal import open_journal
from streamkit.journal.sqlite.copies import restore_store
from streamkit.server import Server
from streamkit.terms import Position
from streamkit.testing import serve
from streamkit.transport import Channel
from tests.cli.tools import ServerProcess, invoke

BACKUP = "/streamservice.AdminService/Backup"


async def stored(client: AsyncClient, newest: int) -> list[str]:
    """All updates up to the newest, and that their sequences have no hole."""
    found: list[str] = []
    async with client.subscribe("n", start="all") as updates:
        async for update in updates:
            assert update.sequence == len(found) + 1
            found.append(update.message)
            if len(found) == newest:
                break
    return found


async def test_a_backup_during_writes_is_a_beginning(tmp_path: Path) -> None:
    copy, again = tmp_path / "copy.db", tmp_path / "again.db"
    sent = 0
    acknowledged = 0
    async with (
        Server(journal=tmp_path / "store.db", port=0) as server,
        AsyncClient(server.address) as client,
    ):

        async def write() -> None:
            nonlocal sent, acknowledged
            while True:
                batch = [Update(topic="n", message=str(sent + n + 1)) for n in range(100)]
                sent += len(batch)
                await client.publish_many(batch)
                acknowledged = sent

        writing = asyncio.create_task(write())
        while acknowledged < 5_000:
            await asyncio.sleep(0.01)
        before = acknowledged
        size = await client.backup(copy)
        after = sent
        while acknowledged < after + 500:  # the writer goes on
            await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert server.journal is not None
        epoch = server.journal.epoch
    assert copy.stat().st_size == size and stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"copy.db", "store.db"}

    restore_store(str(copy), str(again))
    async with (
        Server(journal=again, port=0) as server,
        AsyncClient(server.address) as client,
    ):
        assert server.journal is not None
        assert server.journal.epoch != epoch
        newest = (await client.status()).streams[0].newest
        assert before <= newest <= after
        assert await stored(client, newest) == [str(n + 1) for n in range(newest)]
        # What was stored next to it then has a sequence that is given again here: to be refused,
        # not to be matched.
        with pytest.raises(PreconditionError):
            async with client.subscribe("n", start=Position(epoch, newest)) as updates:
                await anext(aiter(updates))
        assert await client.publish("n", "new") == newest + 1
    # The original goes on with its positions.
    async with (
        Server(journal=tmp_path / "store.db", port=0) as server,
        AsyncClient(server.address) as client,
        client.subscribe("n", start=Position(epoch, newest)) as updates,
    ):
        assert (await anext(aiter(updates))).message == str(newest + 1)


@pytest.mark.soak
@pytest.mark.timeout(280)
async def test_a_backup_beside_fifty_thousand_events_a_second(tmp_path: Path) -> None:
    copy, again = tmp_path / "copy.db", tmp_path / "again.db"
    process = ServerProcess(tmp_path / "store.db", "--max-bytes", "0")
    loop = asyncio.get_running_loop()
    waits: dict[bool, list[float]] = {True: [], False: []}
    backing = False
    try:
        async with AsyncClient(process.address) as client:
            begun, stop = loop.time(), asyncio.Event()

            async def write() -> int:
                count = 0
                async with client.publisher() as publisher:
                    while not stop.is_set():
                        for _ in range(500):
                            count += 1
                            if not publisher.try_send("n", str(count)):
                                await publisher.send("n", str(count))
                        await asyncio.sleep(0)
                return count

            async def look() -> None:
                while not stop.is_set():
                    since = loop.time()
                    await client.publish("other", "x")
                    waits[backing].append(loop.time() - since)
                    await asyncio.sleep(0.01)

            writing, looking = asyncio.create_task(write()), asyncio.create_task(look())
            await asyncio.sleep(5)
            before = (await client.status()).streams[0].newest
            backing = True
            await client.backup(copy)
            backing = False
            after = (await client.status()).streams[0].newest
            await asyncio.sleep(3)
            stop.set()
            count = await writing
            await looking
            seconds = loop.time() - begun
    finally:
        assert process.stop() == 0
    restore_store(str(copy), str(again))
    with closing(sqlite3.connect(again)) as opened:
        rows = opened.execute(
            "select count(*), min(sequence), max(sequence) from updates"
        ).fetchone()
        texts = opened.execute("select message from updates where topic = 'n' order by sequence")
        assert all(text == str(place) for place, (text,) in enumerate(texts, 1))
    assert rows[0] == rows[2] - rows[1] + 1 and before <= rows[2] <= after
    quiet, beside = (sorted(waits[which])[-1 - len(waits[which]) // 100] for which in (False, True))
    print(
        f"{count / seconds:,.0f} events/s; the backup has all {rows[2]:,} up to its moment, of"
        f" {before:,} before and {after:,} after; p99 of a publisher {quiet * 1e3:.0f} ms,"
        f" during the backup {beside * 1e3:.0f} ms"
    )


async def test_one_at_a_time_and_none_is_left_when_the_caller_goes(tmp_path: Path) -> None:
    async with (
        Server(journal=tmp_path / "store.db", port=0) as server,
        AsyncClient(server.address) as client,
        Channel(server.address) as channel,
    ):
        for _ in range(40):
            await client.publish("n", "x" * 900_000)
        call = channel.stream(BACKUP, BackupRequest, BackupChunk, request=BackupRequest())
        async with call:
            assert (await anext(aiter(call))).size > 36_000_000
            with pytest.raises(LimitError, match="made already"):
                await client.backup(tmp_path / "second.db")
        async with asyncio.timeout(5):
            while True:
                try:
                    await client.backup(tmp_path / "third.db")
                    break
                except LimitError:
                    await asyncio.sleep(0.05)
        names = {file.name for file in tmp_path.iterdir()}
        assert {"store.db", "third.db"} <= names and not any("copy-" in name for name in names)
        assert "second.db" not in names


async def test_a_cancelled_copy_leaves_nothing_and_stale_ones_go(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    (tmp_path / ".store.db.copy-stale").write_bytes(b"of a server that was killed")
    async with await open_journal(str(store)) as journal:
        for _ in range(40):
            await journal.append_updates([Update(topic="n", message="x" * 900_000)])
        copying = asyncio.create_task(journal.copy())
        await asyncio.sleep(0.005)
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)
        assert not [name for name in os.listdir(tmp_path) if "copy-" in name]
        with await journal.copy() as file:
            assert file.read(16) == b"SQLite format 3\0"


async def test_no_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 1 << 20))
    async with await open_journal(str(tmp_path / "store.db")) as journal:
        with pytest.raises(StoreError, match=r"no room for a copy: it needs 6. MiB .* 1 MiB are"):
            await journal.copy()
        assert not [name for name in os.listdir(tmp_path) if "copy-" in name]


async def test_what_is_unused_in_the_store_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    await (await open_journal(str(path))).close()
    with closing(sqlite3.connect(path)) as store:
        store.execute("create table large as select zeroblob(40000000) as data")
        store.commit()
        store.execute("drop table large")
        store.commit()
        assert store.execute("pragma freelist_count").fetchone()[0] * 4096 > 30_000_000
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 80 << 20))
    async with await open_journal(str(path)) as journal:
        (await journal.copy()).close()


async def test_a_journal_in_memory_has_no_copy() -> None:
    async with await open_journal(":memory:") as journal:
        with pytest.raises(UnimplementedError):
            await journal.copy()


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    async with serve() as address, AsyncClient(address) as client:
        with pytest.raises(PreconditionError, match=r"cannot write .*nothing/copy.db"):
            await client.backup(tmp_path / "nothing" / "copy.db")
        assert await client.backup(tmp_path / "copy.db") > 0  # the first one is over


async def make_copy(path: Path) -> None:
    async with (
        Server(journal=path.with_suffix(".store"), port=0) as server,
        AsyncClient(server.address) as client,
    ):
        await client.publish_many([Update(topic="n", message="x" * 1_000) for _ in range(200)])
        await client.backup(path)


async def test_what_is_no_whole_copy_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    copy, target = tmp_path / "copy.db", tmp_path / "new.db"
    await make_copy(copy)
    data = copy.read_bytes()
    cases = {
        "short": (data[: len(data) // 2], "damaged|no whole copy"),
        "text": (b"not at all a database" * 100, "no whole copy"),
        "empty": (b"", "no copy of a streamkit store"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError, match=said):
            restore_store(str(tmp_path / name), str(target))
        assert not [file for file in os.listdir(tmp_path) if file.startswith("new.db")]
    newer = tmp_path / "newer"
    shutil.copy(copy, newer)
    connection = sqlite3.connect(newer)
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="written by a newer streamkit"):
        restore_store(str(newer), str(target))
    with pytest.raises(StoreError, match="is not there"):
        restore_store(str(tmp_path / "nothing"), str(target))
    assert copy.read_bytes() == data


async def test_a_store_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    copy, store = tmp_path / "copy.db", tmp_path / "store.db"
    await make_copy(copy)
    async with await open_journal(str(store)) as journal:
        await journal.append_updates([Update(topic="other")])
        with pytest.raises(StoreError, match="is in use by another server"):
            restore_store(str(copy), str(store), force=True)
    done = await asyncio.to_thread(invoke, "restore", str(copy), "--store", str(store))
    assert done.returncode == 1 and "is there already; choose another path, or --force" in str(
        done.stderr
    )
    # The write-ahead log of a server that was killed must not find its way into the new store.
    Path(f"{store}-wal").write_bytes(b"of before")
    done = await asyncio.to_thread(invoke, "restore", str(copy), "--store", str(store), "--force")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    async with await open_journal(str(store)) as journal:
        assert tuple(journal.bounds("updates")) == (1, 200)  # type: ignore[arg-type]  # a StrEnum's text
        assert (await journal.append_updates([Update(topic="n")])).first == 201


async def test_the_command_saves(tmp_path: Path) -> None:
    async with serve() as address:
        done = await asyncio.to_thread(invoke, "backup", str(tmp_path / "copy.db"), server=address)
        assert done.returncode == 0 and "saved " in str(done.stderr), done.stderr
    assert (tmp_path / "copy.db").read_bytes()[:6] == b"SQLite"


async def test_a_backup_that_is_cut_short_is_no_file(tmp_path: Path) -> None:
    class Short(AdminServiceBase):
        async def backup(self, backup_request: BackupRequest) -> AsyncIterator[BackupChunk]:
            yield BackupChunk(b"abc", 10)
            yield BackupChunk(b"def")

    (tmp_path / "copy.db").write_bytes(b"former")
    async with serve(Short(), journal=None) as address, AsyncClient(address) as client:
        with pytest.raises(ConnectError, match="ended after 6 of 10 bytes"):
            await client.backup(tmp_path / "copy.db")
    assert [file.name for file in tmp_path.iterdir()] == ["copy.db"]
    assert (tmp_path / "copy.db").read_bytes() == b"former"
