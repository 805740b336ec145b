"""One server per store, by whatever name, and a store that goes away under it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from streamkit.errors import StoreError
from streamkit.journal import open_journal
from streamkit.journal.sqlite import lock
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.testing.journal.support import stored, texts, topics, updates


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def opened(path: Path) -> SqliteJournal:
    journal = await open_journal(str(path))
    assert isinstance(journal, SqliteJournal)
    return journal


@pytest.mark.parametrize("link", [os.link, os.symlink])
async def test_a_link_is_the_same_store(path: Path, tmp_path: Path, link: object) -> None:
    other = tmp_path / "other.db"
    async with await opened(path) as journal:
        await journal.append_updates(updates("a"))
        link(path, other)  # type: ignore[operator]  # one of the functions
        with pytest.raises(StoreError, match="in use by another server"):
            await opened(other)
        await journal.append_updates(updates("b"))
    async with await opened(other) as journal:
        assert texts(await stored(journal, topics())) == ["a", "b"]
        with pytest.raises(StoreError, match="in use by another server"):
            await opened(path)


async def test_a_link_is_the_same_store_for_another_process(path: Path, tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from streamkit.journal import open_journal\n"
        "try: asyncio.run(open_journal(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    other = tmp_path / "other.db"
    async with await opened(path):
        os.link(path, other)
        os.unlink(f"{path}.lock")
        for name in (other, path):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, str(name), stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert output.decode().startswith("StoreError"), name
            assert "in use by another server" in output.decode()


async def test_what_is_made_is_for_its_owner_alone(path: Path, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        async with await opened(path) as journal:
            await journal.append_updates(updates("a"))
            await stored(journal, topics())
            modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


async def test_a_removed_lock_file_is_made_again(path: Path) -> None:
    async with await opened(path) as journal:
        os.unlink(f"{path}.lock")
        await journal._watch()
        assert Path(f"{path}.lock").read_text() == f"{os.getpid()}\n"
        assert await journal.append_updates(updates("a"))
    assert not Path(f"{path}.lock").exists()


@pytest.mark.parametrize("away", ["removed", "replaced", "log"])
async def test_nothing_is_acknowledged_once_the_store_is_gone(
    path: Path, tmp_path: Path, away: str, caplog: pytest.LogCaptureFixture
) -> None:
    changed = asyncio.Event()
    async with await opened(path) as journal:
        journal.on_faults = changed.set
        await journal.append_updates(updates("a"))
        await journal._watch()  # knows the log now
        gone = f"{path}-wal" if away == "log" else str(path)
        os.rename(gone, tmp_path / "elsewhere")
        if away == "replaced":
            path.write_bytes(b"")
        async with asyncio.timeout(10):
            await changed.wait()  # within a second, by itself
        (fault,) = journal.faults
        assert "while it was in use" in fault
        assert (await journal.status()).faults == (fault,)
        with pytest.raises(StoreError, match="while it was in use"):
            await journal.append_updates(updates("b"))
        assert [r.levelname for r in caplog.records if "in use" in r.message] == ["WARNING"]
        changed.clear()
        os.replace(tmp_path / "elsewhere", gone)
        async with asyncio.timeout(10):
            await changed.wait()
        assert journal.faults == ()
        await journal.append_updates(updates("c"))
        assert texts(await stored(journal, topics())) == ["a", "c"]
    assert not await asyncio.to_thread(Path(f"{path}.lock").exists)


def test_a_lock_file_that_is_removed_while_it_is_taken_is_not_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = lock.locked
    removals = 2

    def late(file: int) -> bool:
        nonlocal removals
        locked = taken(file)
        if removals and os.path.exists(f"{path}.lock"):
            removals -= 1
            os.unlink(f"{path}.lock")  # as its last holder does, just before it is locked here
        return locked

    monkeypatch.setattr(lock, "locked", late)
    held = lock.StoreLock(str(path))
    assert removals == 0
    assert os.path.samestat(os.stat(f"{path}.lock"), os.fstat(held._file))
    held.release()
    held.release()
    assert not Path(f"{path}.lock").exists()
