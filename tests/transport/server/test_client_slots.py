"""The places that a server allows: a call holds one as long as the server serves it, not longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hyperframe.frame import HeadersFrame

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import CallCancelledError, StreamkitError
from streamkit.generated.streamservice import JobRequest
from streamkit.transport import Channel
from tests.transport.client.calls import REPLY, listening, sending, unary
from tests.transport.client.raw_server import (
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    Peer,
    message,
    raw_server,
)
from tests.transport.inside import pool_of

CANCEL = 8


def channel_to(target: str, **settings: Any) -> Channel:
    return Channel(target, codec=StreamkitCodec(), connect_timeout=2, **settings)


def left(channel: Channel) -> tuple[int, int, int]:
    """Streams listed, streams that h2 knows, and bytes counted as unread."""
    protocol = pool_of(channel).connection
    assert protocol is not None
    wire = protocol.connection
    return len(protocol.processor.streams), len(wire.h2.streams), wire._unread


async def test_an_ended_call_frees_its_place_before_it_is_left() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({MAX_CONCURRENT_STREAMS: 1})
        while True:
            peer.answer(await peer.request(), REPLY)

    async with raw_server(script) as server, channel_to(server.target) as channel:
        async with listening(channel) as first:
            await first.initial_metadata()
            while not first.done:
                await asyncio.sleep(0)
            assert await unary(channel) == REPLY
            assert [bytes(reply) for reply in await first.receive()] == [REPLY]
            assert await first.receive() == []
        assert left(channel) == (0, 0, 0)


async def test_a_reset_call_frees_its_place_before_it_is_left() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({MAX_CONCURRENT_STREAMS: 1})
        stream = await peer.request()
        peer.send(
            peer.headers(stream), peer.data(stream, message(REPLY)), peer.reset(stream, CANCEL)
        )
        while True:
            peer.answer(await peer.request(), REPLY)

    async with raw_server(script) as server, channel_to(server.target) as channel:
        async with listening(channel) as first:
            while not first.done:
                await asyncio.sleep(0)
            assert await unary(channel) == REPLY
            assert [bytes(reply) for reply in await first.receive()] == [REPLY]
            with pytest.raises(CallCancelledError):
                await first.receive()
        assert left(channel) == (0, 0, 0)


async def test_refused_and_reset_calls_leave_nothing_behind() -> None:
    """Also those that are sent again on the same connection."""
    refused, internal = 7, 2

    async def script(peer: Peer) -> None:
        await peer.greet()
        for code in (refused, internal) * 20:
            peer.send(peer.reset(await peer.request(), code))
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server, channel_to(server.target) as channel:
        for _ in range(20):
            with pytest.raises(StreamkitError):
                await unary(channel)
        assert await unary(channel) == REPLY
        assert left(channel) == (0, 0, 0)


async def test_a_connection_that_goes_away_closes_after_its_refused_calls() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        if peer.number == 0:
            peer.send(peer.go_away(0))
            try:
                await peer.hang()
            finally:
                gone.set()
        peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server, channel_to(server.target) as channel:
        assert await unary(channel) == REPLY
        async with asyncio.timeout(5):
            await gone.wait()


async def test_an_answer_before_the_end_of_the_request_ends_the_request() -> None:
    """The sender that waits for room learns of it, and the server gets no more."""

    async def script(peer: Peer) -> None:
        await peer.greet({MAX_CONCURRENT_STREAMS: 1, INITIAL_WINDOW_SIZE: 1000})
        peer.answer((await peer.until(HeadersFrame)).stream_id, REPLY)
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        limits = TransportLimits(send_buffer=2000)
        async with channel_to(server.target, limits=limits) as channel:
            async with sending(channel) as call, asyncio.timeout(5):
                with pytest.raises(StreamkitError, match="ended"):
                    while True:
                        await call.send(JobRequest(job_id="x" * 500))
                assert await unary(channel) == REPLY
            assert left(channel) == (0, 0, 0)


async def test_what_is_unread_of_a_lost_call_is_not_held_against_the_server() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream))
        for _ in range(10):
            peer.send(peer.data(stream, message(bytes(10_000))))
        peer.send(peer.reset(stream, CANCEL))
        stream = await peer.request()
        peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server, channel_to(server.target) as channel:
        async with listening(channel) as call:
            while not call.done:
                await asyncio.sleep(0)
            assert left(channel) == (0, 0, 0)
        assert await unary(channel) == REPLY
        assert left(channel) == (0, 0, 0)
