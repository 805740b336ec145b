"""Calls that have no connection yet: they fail as soon as it is known, and leave nothing behind."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamkit.errors import ConnectError
from tests.transport.client.calls import REPLY, listening, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, raw_server


async def test_a_server_that_closes_before_its_settings(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target, connect_timeout=60.0)
        started = time.monotonic()
        with pytest.raises(ConnectError):
            await unary(channel, timeout=30)
        assert time.monotonic() - started < 5
        await channel.aclose()


async def test_a_call_that_is_given_up_while_it_waits(connect: NewChannel) -> None:
    """It takes no place from those that follow, and never reaches the server."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await release.wait()
        await peer.greet({3: 1})  # one stream at a time
        for _ in range(2):
            peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        given_up = [listening(channel, timeout=60) for _ in range(3)]
        opening = [asyncio.create_task(call.open()) for call in given_up]
        staying = asyncio.create_task(unary(channel))
        while not server.peers:
            await asyncio.sleep(0.001)
        for task in opening:
            task.cancel()
        await asyncio.wait(opening)
        assert all(task.cancelled() for task in opening)
        release.set()
        assert await staying == REPLY
        assert await unary(channel) == REPLY
        requests = [f for f in server.peers[0].frames if type(f).__name__ == "HeadersFrame"]
        assert len(requests) == 2
        await channel.aclose()
