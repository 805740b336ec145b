"""Leaving and cancelling a call, and closing the channel under it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hyperframe.frame import RstStreamFrame

from streamkit.errors import CallCancelledError, ConnectError
from streamkit.transport import Channel, ClientCall
from tests.transport.client.calls import REPLY, listening, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, message, raw_server


async def test_leaving_a_call_cancels_it(connect: NewChannel) -> None:
    reset: asyncio.Future[RstStreamFrame] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.data(stream, message(REPLY)))
        reset.set_result(await peer.until(RstStreamFrame))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as call:
            await call.receive()
        assert (await asyncio.wait_for(reset, 20)).error_code == 8
        with pytest.raises(CallCancelledError):
            await call.receive()
        await channel.aclose()


async def test_receive_after_cancel(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.data(stream, message(REPLY) * 3))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as call:
            await call.initial_metadata()
            waiting = asyncio.create_task(forever(call))
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(CallCancelledError):
                await waiting
            for _ in range(2):
                with pytest.raises(CallCancelledError):
                    await call.receive()
        await channel.aclose()


async def forever(call: ClientCall[Any, Any]) -> None:
    while await call.receive():
        continue


async def test_closing_the_channel_ends_its_calls(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as call:
            waiting = asyncio.create_task(forever(call))
            await asyncio.sleep(0.01)
            await channel.aclose()
            with pytest.raises(ConnectError):
                await waiting
        with pytest.raises(ConnectError, match="closed"):
            await unary(channel)


async def test_reset_dials_anew(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        if peer.number:
            peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel: Channel = connect(server.target)
        async with listening(channel) as call:
            await channel.reset()
            with pytest.raises(ConnectError):
                await call.receive()
        assert await unary(channel) == REPLY
        await channel.aclose()
