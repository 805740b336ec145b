"""Connections that are not made or are lost end every call of theirs, with an error of the tree."""

from __future__ import annotations

import asyncio
import socket

import pytest

from streamkit.errors import ConnectError, DeadlineError, InvalidArgumentError, LimitError
from streamkit.generated.streamservice import JobRequest
from tests.transport.client.calls import REPLY, listening, sending, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, message, raw_server


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("target", ["127.0.0.1:{}", "localhost:{}", "unix:/nowhere/{}"])
async def test_nobody_there(connect: NewChannel, target: str) -> None:
    channel = connect(target.format(free_port()))
    with pytest.raises(ConnectError) as caught:
        await unary(channel)
    assert channel.target in caught.value.message
    assert "refused" in caught.value.message or "No such file" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("target", ["host:", "host:x", "host:70000", ":x"])
async def test_a_target_that_is_no_address(connect: NewChannel, target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not an address"):
        connect(target)


async def test_a_server_that_says_nothing(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, connect_timeout=0.05)
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s"):
            await unary(channel)
        await channel.aclose()


@pytest.mark.parametrize(
    ("greeting", "noted"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1 instead of HTTP/2"),
        (b"\x15\x03\x03\0\2\2\x46" + bytes(9), "TLS instead of plain HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.0\r\n", "not HTTP/2"),
    ],
)
async def test_a_server_of_another_protocol(
    connect: NewChannel, greeting: bytes, noted: str
) -> None:
    async def script(peer: Peer) -> None:
        peer.raw(greeting)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(ConnectError, match=f"no connection to {server.target}: {noted}"):
            await unary(channel)
        await channel.aclose()


async def test_a_connection_lost_ends_every_call(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({3: 2})  # two streams; the third call waits in line
        await peer.request()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.data(stream, message(REPLY)))
        await asyncio.sleep(0.05)
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as first, listening(channel) as second:
            waiting = asyncio.create_task(unary(connect(server.target)))
            assert len(await second.receive()) == 1
            for call in (first, second):
                with pytest.raises(ConnectError, match="lost"):
                    await call.receive()
                with pytest.raises(ConnectError):
                    await call.receive()
            waiting.cancel()
            await asyncio.wait([waiting])
        await channel.aclose()


async def test_one_in_line_for_a_stream_is_served_by_the_next_connection(
    connect: NewChannel,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({3: 1})
        stream = await peer.request()
        if peer.number == 0:
            await asyncio.sleep(0.05)
            peer.abort()
        peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as first:
            waiting = asyncio.create_task(unary(channel))
            with pytest.raises(ConnectError):
                await first.receive()
            assert await waiting == REPLY
        await channel.aclose()


async def test_waiting_for_a_stream_has_an_end(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({3: 1})
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, connect_timeout=0.1)
        async with listening(channel):
            with pytest.raises(LimitError, match="no free stream"):
                await unary(channel)
            with pytest.raises(DeadlineError):
                await unary(channel, timeout=0.02)
        await channel.aclose()


async def test_a_blocked_sender_learns_of_the_loss(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({4: 1000})  # a window that nobody opens
        await asyncio.sleep(0.1)
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with sending(channel) as call:
            with pytest.raises(ConnectError):
                while True:
                    await call.send(JobRequest(job_id="x" * 10_000))
        await channel.aclose()
