"""Cancellation and deadlines stay apart, whatever happens in the same moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from streamkit.errors import ConnectError, DeadlineError, StreamkitError
from streamkit.transport import Channel
from tests.transport.client.calls import listening, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, RawServer, raw_server
from tests.transport.inside import pool_of


async def silent(peer: Peer) -> None:
    """Accept requests, answer none."""
    await peer.greet()
    await peer.hang()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(silent) as server:
        yield server


def lose_connection(channel: Channel) -> None:
    """What the loop does when the connection is lost, now."""
    protocol = pool_of(channel).connection
    assert protocol is not None
    protocol.connection.transport.abort()
    protocol.connection_lost(None)


FIRST = pytest.mark.parametrize("first", ["cancel", "loss"])
WHAT = pytest.mark.parametrize("what", ["receive", "metadata", "unary"])


@FIRST
@WHAT
async def test_a_cancellation_beside_a_loss_is_honoured(
    connect: NewChannel, server: RawServer, first: str, what: str
) -> None:
    await cancel_beside_loss(50, connect(server.target), first, what)


@FIRST
@WHAT
@pytest.mark.soak
async def test_a_thousand_cancellations_beside_a_loss_are_honoured(
    connect: NewChannel, server: RawServer, first: str, what: str
) -> None:
    await cancel_beside_loss(1000, connect(server.target), first, what)


async def cancel_beside_loss(rounds: int, channel: Channel, first: str, what: str) -> None:
    """Cancel a task in the moment in which its connection is lost, again and again."""

    async def attempt() -> None:
        if what == "unary":
            await unary(channel)
        async with listening(channel) as call:
            await (call.receive() if what == "receive" else call.initial_metadata())

    honoured = 0
    for _ in range(rounds):
        task = asyncio.create_task(attempt())
        while pool_of(channel).connection is None:
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        if first == "cancel":
            task.cancel()
            lose_connection(channel)
        else:
            lose_connection(channel)
            task.cancel()
        await asyncio.wait([task])
        honoured += task.cancelled()
    print(f"{what}, {first} first: {honoured}/{rounds} cancellations honoured")
    assert honoured == rounds
    await channel.aclose()


async def test_a_deadline_leaves_no_trace_on_the_task(
    connect: NewChannel, server: RawServer
) -> None:
    channel = connect(server.target)
    task = asyncio.current_task()
    assert task is not None
    for _ in range(5):
        with pytest.raises(DeadlineError):
            await unary(channel, timeout=0.01)
        assert task.cancelling() == 0

    async def fails() -> None:
        raise ValueError

    # With a cancellation left over, a group that fails and is handled would end the task here.
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
    await asyncio.sleep(0)
    await channel.aclose()


async def test_a_timeout_around_a_call_is_a_timeout(connect: NewChannel, server: RawServer) -> None:
    channel = connect(server.target)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), listening(channel) as call:
            await call.receive()
    assert await unary_fails(channel, timeout=0.01) is DeadlineError
    await channel.aclose()


async def unary_fails(channel: Channel, **settings: float) -> type[StreamkitError]:
    with pytest.raises(StreamkitError) as caught:
        await unary(channel, **settings)
    return type(caught.value)


@pytest.mark.parametrize("timeout", [0.0, -1.0, 1e-9])
async def test_a_deadline_that_is_over_sends_nothing(
    connect: NewChannel, server: RawServer, timeout: float
) -> None:
    channel = connect(server.target)
    assert await unary_fails(channel, timeout=timeout) is DeadlineError
    await channel.aclose()
    assert server.peers == []


async def test_a_deadline_holds_while_dialling(connect: NewChannel) -> None:
    async def mute(peer: Peer) -> None:
        await peer.hang()

    async with raw_server(mute) as server:
        channel = connect(server.target)
        assert await unary_fails(channel, timeout=0.03) is DeadlineError
        task = asyncio.create_task(unary(channel))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await channel.aclose()


async def test_a_thousand_deadlines_at_once(connect: NewChannel, server: RawServer) -> None:
    channel = connect(server.target)
    async with listening(channel):
        pass  # connected
    calls = (unary_fails(channel, timeout=0.05) for _ in range(1000))
    assert set(await asyncio.gather(*calls)) == {DeadlineError}
    protocol = pool_of(channel).connection
    assert protocol is not None
    assert protocol.processor.streams == {}
    assert protocol.connection.h2.streams == {}
    await channel.aclose()


async def test_a_loss_is_told_to_all(connect: NewChannel, server: RawServer) -> None:
    channel = connect(server.target)
    tasks = [asyncio.create_task(unary_fails(channel, timeout=5)) for _ in range(50)]
    while len(server.peers) < 1:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    lose_connection(channel)
    assert set(await asyncio.gather(*tasks)) == {ConnectError}
    await channel.aclose()
