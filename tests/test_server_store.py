"""A server and its store: what the one does when the other is in trouble."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import streamkit
from streamkit.config import JournalOptions, Retention
from streamkit.errors import AbortedError, StoreError, StreamkitError
from streamkit.generated.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)
from streamkit.generated.streamservice import LogEntry, ServerStatus, StatusRequest, Update
from streamkit.server import Server
from tests.test_server import ADMIN, dial, publish

SERVING = HealthCheckResponseServingStatus.SERVING
NOT_SERVING = HealthCheckResponseServingStatus.NOT_SERVING


async def test_a_store_that_is_gone_is_seen_in_health_and_status(tmp_path: Path) -> None:
    store, away = tmp_path / "store.db", tmp_path / "away"
    producers = "streamservice.ProducerService"
    async with Server(journal=store, port=0) as server, dial(server.address) as channel:
        watching = channel.stream(
            "/grpc.health.v1.Health/Watch",
            HealthCheckRequest,
            HealthCheckResponse,
            request=HealthCheckRequest(producers),
        )
        async with watching as health, asyncio.timeout(20):
            assert [told.status for told in await health.receive()] == [SERVING]
            os.rename(store, away)
            assert [told.status for told in await health.receive()] == [NOT_SERVING]
            status = await channel.unary(ADMIN + "GetStatus", StatusRequest(), ServerStatus)
            assert "was removed while it was in use" in status.faults[0]
            with pytest.raises((StoreError, StreamkitError), match="while it was in use"):
                await publish(channel, "a", "b")
            os.rename(away, store)
            assert [told.status for told in await health.receive()] == [SERVING]
            await publish(channel, "a", "b")
            status = await channel.unary(ADMIN + "GetStatus", StatusRequest(), ServerStatus)
            assert status.faults == []


async def test_a_query_that_is_read_slowly_ends_when_it_keeps_the_log_from_shrinking(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store.db"
    options = JournalOptions(retention=Retention(max_bytes=8 << 20))
    async with Server(journal=store, port=0, journal_options=options) as server:
        journal = server.journal
        assert journal is not None
        texts = [Update(topic="t", message="x" * 10_000)] * 50
        await journal.append_updates(texts)
        largest = 0

        async def write() -> None:
            nonlocal largest
            while True:
                await journal.append_updates(texts)
                largest = max(largest, os.path.getsize(f"{store}-wal"))

        writing = asyncio.create_task(write())
        async with (
            streamkit.AsyncClient(server.address) as client,
            client.query("select a.message from updates a, updates b", batch=1) as query,
            asyncio.timeout(60),
        ):
            with pytest.raises(AbortedError, match="too much was written"):
                async for _ in query.batches():
                    await asyncio.sleep(0.1)  # a reader who takes his time
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert largest < 256 << 20  # of before: as much as was written until the client left
        for _ in range(100):
            await journal.append_updates(texts)
            await journal.sweep()  # type: ignore[attr-defined]  # the SQLite journal's
            if os.path.getsize(f"{store}-wal") < 4 << 20:
                break
        else:
            pytest.fail("the log stays large")


async def test_a_drain_lets_a_read_of_what_is_stored_come_to_its_end(tmp_path: Path) -> None:
    lines = 40_000
    options = JournalOptions(ring_records=1)
    server = Server(journal=tmp_path / "s.db", port=0, grace=60.0, journal_options=options)
    await server.start()
    assert server.journal is not None
    for first in range(0, lines, 5000):
        entries = [LogEntry(service="s", level="info", message=f"{first + n}") for n in range(5000)]
        await server.journal.append_logs(entries)
    async with (
        streamkit.AsyncClient(server.address) as client,
        client.logs("s", lines=lines) as reading,
    ):
        seen, stopping = 0, None
        async for line in reading:
            assert line.message == f"{seen}"
            seen += 1
            if stopping is None:
                stopping = asyncio.create_task(server.stop())
        assert seen == lines
        assert stopping is not None
        await stopping
