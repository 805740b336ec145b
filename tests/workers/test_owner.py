"""The process that owns what its workers share, without a command line around it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from streamkit.config import WorkerLimits
from streamkit.errors import InvalidArgumentError
from streamkit.journal import open_journal
from streamkit.server import Server
from streamkit.workers.owner import Owner, WorkerFailedError
from tests.client.servers import QUICK

SERVE = [sys.executable, "-m", "streamkit", "serve", "--config", os.devnull]
STORE = {"store": (":memory:", "COMMANDLINE")}
"""What a worker is told; it gets the journal of its owner instead."""


async def test_a_worker_that_hangs_is_ended_and_started_again(tmp_path: Path) -> None:
    server = Server(journal=tmp_path / "store.db", port=0)
    notes: list[str] = []
    told = asyncio.Event()

    def note(text: str) -> None:
        notes.append(text)
        if "starting another" in text:
            told.set()

    limits = WorkerLimits(silence=1.0)
    async with (
        Owner(server, 1, SERVE, STORE, note, limits=limits),
        AsyncClient(server.address, backoff=QUICK) as client,
    ):
        assert await client.publish("a", "before") == 1
        (worker,) = (await client.status()).workers
        os.kill(worker.pid, signal.SIGSTOP)
        async with asyncio.timeout(30):
            await told.wait()
            assert await client.publish("a", "after") == 2
        assert notes == [
            f"worker 1 (process {worker.pid}) does not answer",
            f"worker 1 (process {worker.pid}) was ended by signal 9; starting another",
        ]


async def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    async with await open_journal(str(tmp_path / "store.db")) as journal:
        with pytest.raises(InvalidArgumentError, match="not a journal made in code"):
            await Owner(Server(journal=journal, port=0), 1, SERVE, STORE, print).start()


async def test_a_worker_that_does_not_start_leaves_nothing_behind(tmp_path: Path) -> None:
    server = Server(journal=tmp_path / "store.db", port=0)
    with pytest.raises(WorkerFailedError) as failed:
        await Owner(server, 2, [sys.executable, "-c", "exit(7)"], {}, print).start()
    assert failed.value.code == 7
    async with await open_journal(str(tmp_path / "store.db")):
        pass
