"""Times that are given to a client and are none: said in one line, or taken for no end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from streamkit.client.aio import AsyncClient
from streamkit.errors import InvalidArgumentError
from streamkit.server import Server
from streamkit.testing import serve


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with serve() as address:
        yield address


async def idle(server: str, seconds: float) -> None:
    async with AsyncClient(server, idle_timeout=seconds) as client:
        await client.publish("a", "1")
        async with client.subscribe("a", start="all") as updates:
            assert await updates.receive()


async def query(server: str, seconds: float) -> None:
    async with AsyncClient(server) as client:
        assert [row async for row in client.query("SELECT 1 AS x", timeout=seconds)]


async def wait(server: str, seconds: float) -> None:
    async with AsyncClient(server) as client:
        async with client.job("j"):
            pass
        async with client.watch_job("j", wait=seconds) as states:
            assert await states.receive()


async def report(server: str, seconds: float) -> None:
    async with AsyncClient(server) as client, client.job("k", heartbeat=seconds):
        pass


WAYS = pytest.mark.parametrize("way", [idle, query, wait, report])


@WAYS
async def test_a_time_without_end(
    way: Callable[[str, float], Coroutine[Any, Any, None]], server: str
) -> None:
    await asyncio.wait_for(way(server, math.inf), 10)
    await asyncio.wait_for(way(server, 1e300), 10)


@WAYS
async def test_what_is_no_number(
    way: Callable[[str, float], Coroutine[Any, Any, None]], server: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="number of seconds"):
        await asyncio.wait_for(way(server, math.nan), 10)


def test_a_servers_grace() -> None:
    Server(grace=math.inf)
    with pytest.raises(InvalidArgumentError, match="grace"):
        Server(grace=math.nan)
