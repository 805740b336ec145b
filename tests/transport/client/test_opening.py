"""Calls that are given up, or disappointed, before they are on a connection."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.errors import ConnectError
from tests.transport.client.calls import REPLY, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, raw_server
from tests.transport.inside import pool_of


async def test_a_call_that_is_cancelled_while_it_waits_is_never_sent(connect: NewChannel) -> None:
    """For a connection, and for a place on it."""
    go, greeted = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        await go.wait()
        await peer.greet({3: 1})  # one stream at a time
        greeted.set()
        for _ in range(2):
            stream = await peer.request()
            seen.append(peer.fields(stream)["x"])
            await asyncio.sleep(0.05)
            peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)

        def call(name: str) -> asyncio.Task[bytes]:
            return asyncio.create_task(unary(channel, timeout=20, metadata={"x": name}))

        first, second = call("cancelled while dialling"), call("first")
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        go.set()
        await greeted.wait()
        while not seen:
            await asyncio.sleep(0.001)
        third, fourth = call("cancelled in line"), call("second")
        await asyncio.sleep(0)
        third.cancel()
        assert await second == await fourth == REPLY
        assert third.cancelled()
        assert seen == ["first", "second"]
        assert pool_of(channel)._queue == {}
        await channel.aclose()


async def test_a_server_that_closes_before_its_settings(connect: NewChannel) -> None:
    """The call need not wait for the end of its patience to be told."""

    async def script(peer: Peer) -> None:
        return None

    async with raw_server(script) as server:
        channel = connect(server.target, connect_timeout=1000)
        with pytest.raises(ConnectError, match="closed the connection at once") as caught:
            await asyncio.wait_for(unary(channel, timeout=None), 10)
        assert "TLS" in caught.value.hint
        await channel.aclose()
