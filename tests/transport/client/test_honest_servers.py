"""A client's budgets are for what no honest server does: here each is next to nothing."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import RstStreamFrame

from streamkit.config import TransportLimits
from streamkit.errors import InternalError, InvalidArgumentError
from streamkit.generated.streamservice import JobRequest
from tests.transport.client.calls import REPLY, listening, sending, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, message, raw_server

NOTHING = TransportLimits(window_updates=1, empty_frames=1, resets=1, pings=2, settings=10)


async def test_a_client_leaves_a_busy_stream(connect: NewChannel) -> None:
    """Fifty thousand small messages are still on their way; a call beside it does not notice."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        idle, busy = await peer.request(), await peer.request()
        peer.send(peer.headers(idle), peer.headers(busy), peer.data(busy, message(REPLY)))
        await peer.until(RstStreamFrame, busy)
        for _ in range(50):
            peer.raw(peer.data(busy, message(b"x")).serialize() * 1000)
            await asyncio.sleep(0)
        peer.send(peer.window(busy, 100), peer.trailers(busy), peer.reset(busy, 0))
        peer.send(peer.data(idle, message(REPLY)), peer.trailers(idle))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, limits=NOTHING)
        idle, busy = listening(channel), listening(channel)
        await idle.open()
        await busy.open()
        assert await anext(busy) is not None
        await busy.leave()
        assert [bytes(reply) async for reply in idle] == [REPLY]
        await idle.leave()
        await channel.aclose()


async def test_a_server_resets_every_call(connect: NewChannel) -> None:
    """As a proxy does when what is behind it has gone; each reset is of a call that we made."""
    calls = 300

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(calls):
            peer.send(peer.reset(await peer.request(), 2))
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, limits=NOTHING)
        ends = await asyncio.gather(*(unary(channel) for _ in range(calls)), return_exceptions=True)
        assert {type(end) for end in ends} == {InternalError}
        assert await unary(channel) == REPLY
        assert len(server.peers) == 1
        await channel.aclose()


async def test_window_updates_for_each_message_of_an_upload(connect: NewChannel) -> None:
    """As grpcio sends them; those for the streams that are over, too."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(5):
            stream = await peer.request()
            peer.raw(peer.window(stream, 5).serialize() * 1000)
            peer.answer(stream, REPLY)
            peer.raw(peer.window(stream, 5).serialize() * 50)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, limits=NOTHING)
        for _ in range(5):
            call = sending(channel)
            await call.open()
            for _ in range(1000):
                await call.send(JobRequest())
            await call.end()
            assert [bytes(reply) async for reply in call] == [REPLY]
            await call.leave()
        assert len(server.peers) == 1
        await channel.aclose()


async def test_trailers_that_are_too_large(connect: NewChannel) -> None:
    """70 KB of them fail their own call, finally, and no other."""
    text = "x" * 70_000

    async def script(peer: Peer) -> None:
        await peer.greet()
        live, failing = await peer.request(), await peer.request()
        peer.send(peer.headers(live), peer.data(live, message(REPLY)))
        fields = [("grpc-status", "3"), ("grpc-message", "a wrong request"), ("debug", text)]
        peer.send(peer.headers(failing), peer.headers(failing, fields, end=True))
        peer.send(peer.data(live, message(REPLY)), peer.trailers(live))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        live = listening(channel)
        await live.open()
        with pytest.raises(InvalidArgumentError, match="a wrong request"):
            await unary(channel)
        assert [bytes(reply) async for reply in live] == [REPLY, REPLY]
        await live.leave()
        await channel.aclose()
