"""A server that goes away, refuses streams or is lost: what goes on, what is sent again."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import GoAwayFrame

from streamkit.errors import ConnectError, StreamkitError
from streamkit.generated.streamservice import JobRequest
from tests.transport.client.calls import REPLY, listening, sending, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import (
    MAX_CONCURRENT_STREAMS,
    Peer,
    message,
    raw_server,
)
from tests.transport.inside import pool_of

REFUSED_STREAM = 7
CANCEL = 8
ENHANCE_YOUR_CALM = 11
ALL = 2**31 - 1


async def test_a_live_stream_outlives_goaway(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        if peer.number:
            peer.answer(stream, REPLY)
            await peer.hang()
        peer.send(peer.headers(stream))
        for index in range(20):
            if index == 5:
                peer.send(peer.go_away(ALL))
            if index == 10:
                peer.send(peer.go_away(stream))
            peer.send(peer.data(stream, message(REPLY)))
            await asyncio.sleep(0.001)
        peer.send(peer.trailers(stream))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        got = 0
        async with listening(channel, timeout=5) as call:
            async for _ in call:
                got += 1
                if got == 12:
                    assert await unary(channel) == REPLY  # on a connection of its own
        assert got == 20
        assert len(server.peers) == 2
        await channel.aclose()


async def test_streams_above_the_last_are_sent_again(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        first = await peer.request()
        if peer.number == 0:
            await peer.request()
            await peer.request()
            peer.send(peer.go_away(first))
            peer.answer(first, REPLY)
            await peer.hang()
        peer.answer(first, REPLY)
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        assert await asyncio.gather(*(unary(channel) for _ in range(3))) == [REPLY] * 3
        assert len(server.peers) == 2
        await channel.aclose()


async def test_a_refused_stream_is_sent_again(connect: NewChannel) -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.greet()
        while True:
            stream = await peer.request()
            requests += 1
            if requests < 4:
                peer.send(peer.reset(stream, REFUSED_STREAM))
            else:
                peer.answer(stream, REPLY)

    async with raw_server(script) as server:
        channel = connect(server.target)
        assert await unary(channel) == REPLY
        assert requests == 4
        await channel.aclose()


async def test_a_refused_upload_is_sent_again_from_its_start(connect: NewChannel) -> None:
    uploads: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            stream = await peer.request()
            data = [frame for frame in peer.frames if frame.stream_id == stream]
            uploads.append(sum(len(getattr(frame, "data", b"")) for frame in data[1:]))
            if len(uploads) == 1:
                peer.send(peer.reset(stream, REFUSED_STREAM))
            else:
                peer.answer(stream, REPLY)

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with sending(channel, timeout=5) as call:
            for _ in range(10):
                await call.send(JobRequest(job_id="x" * 1000))
                await asyncio.sleep(0)
            await call.end()
            await call.reply()
        assert len(uploads) == 2
        assert uploads[0] == uploads[1] > 10_000
        await channel.aclose()


async def test_a_server_that_refuses_for_ever(connect: NewChannel) -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.greet()
        while True:
            stream = await peer.request()
            requests += 1
            peer.send(peer.reset(stream, REFUSED_STREAM))

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(ConnectError, match="REFUSED_STREAM"):
            await unary(channel)
        assert requests == 6
        await channel.aclose()


@pytest.mark.parametrize("code", [CANCEL, REFUSED_STREAM])
async def test_a_stream_that_was_reset_holds_no_place(connect: NewChannel, code: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({MAX_CONCURRENT_STREAMS: 2})
        while True:
            peer.send(peer.reset(await peer.request(), code))

    async with raw_server(script) as server:
        channel = connect(server.target)
        for _ in range(10):
            with pytest.raises(StreamkitError, match="reset the stream"):
                await unary(channel)
        protocol = pool_of(channel).connection
        assert protocol is not None
        assert protocol.processor.streams == {}
        assert protocol.connection.h2.streams == {}
        await channel.aclose()


async def test_what_the_server_has_begun_is_not_sent_again(connect: NewChannel) -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.greet()
        while True:
            stream = await peer.request()
            requests += 1
            peer.send(peer.headers(stream), peer.reset(stream, REFUSED_STREAM))

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(ConnectError):
            await unary(channel)
        assert requests == 1
        await channel.aclose()


async def test_a_reason_given_at_the_end_is_told(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.go_away(stream, ENHANCE_YOUR_CALM, b"too_many_pings"))
        await asyncio.sleep(0.01)
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(ConnectError, match="too_many_pings"):
            await unary(channel)
        await channel.aclose()


@pytest.mark.parametrize(("note", "said"), [(b"", ""), (b"upgrading\n", r" (upgrading\n)")])
async def test_a_reason_is_shown_in_escapes_and_none_is_none(
    connect: NewChannel, note: bytes, said: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.go_away(stream, ENHANCE_YOUR_CALM, note))
        await asyncio.sleep(0.01)
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(ConnectError) as caught:
            await unary(channel)
        assert f"the server is going away{said}" in str(caught.value)
        assert "()" not in str(caught.value)
        await channel.aclose()


async def test_the_channel_says_goodbye(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        await unary(channel)
        await channel.aclose()
        await server.finish()
        assert any(isinstance(frame, GoAwayFrame) for frame in server.peers[0].frames)


async def test_many_calls_through_many_goaways(connect: NewChannel) -> None:
    """Each connection serves five calls and goes; no call notices."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for index in range(5):
            stream = await peer.request()
            if index == 4:
                peer.send(peer.go_away(stream))
            peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)

        async def caller() -> list[StreamkitError | bytes]:
            return [await unary(channel) for _ in range(25)]

        found = await asyncio.gather(*(caller() for _ in range(8)))
        assert found == [[REPLY] * 25] * 8
        assert len(server.peers) >= 40
        await channel.aclose()
