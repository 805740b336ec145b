"""Workers whose owner shares its store with another server, by a log in a database."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from tests.cli.tools import streamkit
from tests.client.servers import QUICK
from tests.database.engines import Postgres
from tests.workers.serving import at_each, gone, kill, serving, whole


@pytest.mark.timeout(180)
async def test_workers_serve_a_store_that_another_server_shares(
    postgres: Postgres, tmp_path: Path
) -> None:
    """What each worker takes the other server has, and the other way; also after one was killed
    and after the database has ended every connection."""
    url = f"{postgres.superuser_url}&log=workers"
    with (
        serving(url, "--data", str(tmp_path / "a")) as one,
        serving(url, "--data", str(tmp_path / "b"), workers=1) as two,
    ):
        async with (
            AsyncClient(one.address, backoff=QUICK) as client,
            AsyncClient(two.address, backoff=QUICK) as other,
            at_each(one.address) as workers,
            client.subscribe("t", start="all") as here,
            other.subscribe("t", start="all") as there,
        ):
            sent: list[str] = []

            async def publish(some: AsyncClient) -> None:
                sent.append(f"{len(sent)}")
                assert await some.publish("t", sent[-1]) == len(sent)

            for _ in range(5):
                for some in (*workers, other):
                    await publish(some)
            status = await whole(client)
            assert "replicated" in status.durability
            victim = status.workers[0].pid
            kill(victim)
            while not gone(victim):
                await asyncio.sleep(0.02)
            postgres.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'streamkit'"
            )
            for _ in range(5):
                for some in (client, other):
                    await publish(some)
            async with asyncio.timeout(60):
                for stream in (here, there):
                    got: list[str] = []
                    while len(got) < len(sent):
                        got += [update.message for update in await stream.receive()]
                    assert got == sent
        told = streamkit("status", server=one.address).stdout
        assert re.search(r"^worker 2 +process \d+", told, re.M), told
        assert one.stop() == 0
