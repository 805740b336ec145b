"""gRPC's negative HTTP/2 cases: a server that is right but unusual, or that breaks off."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import PingFrame

from streamkit.codec import StreamkitCodec
from streamkit.errors import InternalError, StreamkitError
from streamkit.generated.streamservice import JobProgress, JobRequest
from streamkit.transport import Channel
from tests.transport.client.raw_server import (
    MAX_CONCURRENT_STREAMS,
    Peer,
    RawServer,
    message,
    raw_server,
)

PATH = "/streamservice.StreamService/WatchJobProgress"
REPLY = bytes(JobProgress(job_id="j" * 200))


def channel_to(server: RawServer) -> Channel:
    return Channel(server.target, codec=StreamkitCodec())


async def call(channel: Channel) -> JobProgress:
    return await channel.unary(PATH, JobRequest(job_id="j"), JobProgress, timeout=5)


async def fails(channel: Channel) -> StreamkitError:
    with pytest.raises(StreamkitError) as caught:
        await call(channel)
    return caught.value


async def test_goaway() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.go_away(stream))
        await asyncio.sleep(0.02)
        peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server, channel_to(server) as channel:
        for _ in range(3):
            assert bytes(await call(channel)) == REPLY
        assert len(server.peers) == 3


async def test_rst_after_header() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.reset(stream, 0))
        await peer.hang()

    async with raw_server(script) as server, channel_to(server) as channel:
        assert isinstance(await fails(channel), InternalError)


async def test_rst_during_data() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        half = peer.data(stream, message(REPLY)[:100])
        peer.send(peer.headers(stream), half, peer.reset(stream, 0))
        await peer.hang()

    async with raw_server(script) as server, channel_to(server) as channel:
        assert isinstance(await fails(channel), InternalError)


async def test_rst_after_data() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            stream = await peer.request()
            whole = peer.data(stream, message(REPLY))
            peer.send(peer.headers(stream), whole, peer.reset(stream, 0))

    async with raw_server(script) as server, channel_to(server) as channel:
        assert isinstance(await fails(channel), InternalError)
        # A stream gives out what came before it broke.
        async with channel.stream(
            PATH, JobRequest, JobProgress, request=JobRequest(), timeout=5
        ) as stream:
            assert [bytes(reply) for reply in await stream.receive()] == [REPLY]
            with pytest.raises(InternalError):
                await stream.receive()


async def test_ping() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.send(peer.ping(b"ping # 1"))
        stream = await peer.request()
        peer.send(peer.ping(b"ping # 2"), peer.headers(stream), peer.ping(b"ping # 3"))
        peer.send(peer.data(stream, message(REPLY)), peer.ping(b"ping # 4"))
        peer.send(peer.trailers(stream), peer.ping(b"ping # 5"))
        await peer.hang()

    async with raw_server(script) as server:
        async with channel_to(server) as channel:
            assert bytes(await call(channel)) == REPLY
        await server.finish()
        pings = [frame for frame in server.peers[0].frames if isinstance(frame, PingFrame)]
        assert [ping.opaque_data for ping in pings] == [b"ping # %d" % n for n in range(1, 6)]
        assert all("ACK" in ping.flags for ping in pings)


async def test_max_streams() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({MAX_CONCURRENT_STREAMS: 1})
        for _ in range(10):
            stream = await peer.request()
            with pytest.raises(TimeoutError):  # the next one must wait for this answer
                await asyncio.wait_for(peer.request(), 0.005)
            peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server, channel_to(server) as channel:
        replies = await asyncio.gather(*(call(channel) for _ in range(10)))
        assert [bytes(reply) for reply in replies] == [REPLY] * 10
        assert len(server.peers) == 1


@pytest.mark.parametrize("padding", [None, 0, 1, 255], ids=["sanity", "0", "1", "255"])
async def test_data_frame_padding(padding: int | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream))
        for byte in message(REPLY):
            peer.send(peer.data(stream, bytes([byte]), padding=padding))
        peer.send(peer.trailers(stream))
        await peer.hang()

    async with raw_server(script) as server, channel_to(server) as channel:
        assert bytes(await call(channel)) == REPLY
