"""Windows, large messages, signs of life: one call never stops another, nothing waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hyperframe.frame import DataFrame, PingFrame

from streamkit.config import KIB, MIB, TransportLimits
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import JobProgress, JobRequest
from tests.transport.client.calls import REPLY, listening, sending, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import INITIAL_WINDOW_SIZE, Peer, message, raw_server
from tests.transport.inside import pool_of


async def test_streams_that_nobody_reads_block_no_other(connect: NewChannel) -> None:
    """Thirty unread streams, each sent its whole window; the thirty-first is answered."""
    window = TransportLimits().stream_window

    async def script(peer: Peer) -> None:
        await peer.greet()
        chunk = message(bytes(16 * KIB - 5))
        for _ in range(30):
            stream = await peer.request()
            peer.send(peer.headers(stream))
            for _ in range(window // len(chunk)):
                peer.send(peer.data(stream, chunk))
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        unread = [listening(channel) for _ in range(30)]
        for call in unread:
            await call.open()
        assert await unary(channel) == REPLY
        for call in unread:
            await call.leave()
        await channel.aclose()


async def test_a_message_larger_than_the_window(connect: NewChannel) -> None:
    body = bytes(JobProgress(job_id="x" * (3 * MIB)))

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream))
        data = message(body)
        credit = TransportLimits().stream_window
        while data:
            size = min(16 * KIB, credit, len(data))
            if not size:
                frame = await peer.frame()
                if frame.stream_id == stream:
                    credit += getattr(frame, "window_increment", 0)
                continue
            peer.send(peer.data(stream, data[:size]))
            data = data[size:]
            credit -= size
        peer.send(peer.trailers(stream))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        assert await unary(channel) == body
        await channel.aclose()


async def test_windows_return_to_their_size(connect: NewChannel) -> None:
    """Calls left in the middle of messages and frames cost the connection nothing."""
    body = bytes(JobProgress(job_id="x" * 15_000))

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(60):
            stream = await peer.request()
            peer.send(peer.headers(stream))
            for _ in range(20):
                peer.send(peer.data(stream, message(body), padding=7))
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        for index in range(60):
            async with listening(channel) as call:
                await (call.receive() if index % 2 else call.initial_metadata())
        assert await unary(channel) == REPLY
        protocol = pool_of(channel).connection
        assert protocol is not None
        manager = protocol.connection.h2._inbound_flow_control_window_manager
        held = manager.current_window_size + manager._bytes_processed
        assert held == manager.max_window_size
        assert protocol.connection._unread == 0
        await channel.aclose()


async def test_a_sender_waits_for_a_slow_server(connect: NewChannel) -> None:
    open_window = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet({INITIAL_WINDOW_SIZE: 10_000})
        await open_window.wait()
        peer.send(peer.window(1, 2**24), peer.window(0, 2**24))
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with sending(channel) as call:
            sent = 0

            async def upload() -> None:
                nonlocal sent
                for _ in range(100):
                    await call.send(JobRequest(job_id="x" * 5000))
                    sent += 1
                await call.end()

            task = asyncio.create_task(upload())
            await asyncio.sleep(0.02)
            # The window, the buffer, and not more.
            assert 2 < sent < 20
            open_window.set()
            await task
            assert bytes(await call.reply()) == REPLY
        await channel.aclose()


async def test_messages_of_one_moment_leave_together(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with sending(channel) as call:
            for index in range(100):
                await call.send(JobRequest(job_id=str(index)))
            await call.end()
            await call.reply()
        frames = [frame for frame in server.peers[0].frames if type(frame).__name__ == "DataFrame"]
        assert len(frames) <= 3
        await channel.aclose()


async def test_two_senders_do_not_mix_their_messages(connect: NewChannel) -> None:
    received = bytearray()

    async def script(peer: Peer) -> None:
        await peer.greet({INITIAL_WINDOW_SIZE: 3000})
        done = False
        while not done:
            frame = await peer.frame()
            if isinstance(frame, DataFrame):
                received.extend(frame.data)
                done = "END_STREAM" in frame.flags
                if not done and frame.data:
                    peer.send(peer.window(1, len(frame.data)), peer.window(0, len(frame.data)))
        peer.answer(1, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with sending(channel, timeout=10) as call:

            async def upload(letter: str) -> None:
                for _ in range(100):
                    await call.send(JobRequest(job_id=letter * 2000))

            await asyncio.gather(upload("a"), upload("b"))
            await call.end()
            await call.reply()
        await channel.aclose()
    one = {letter: message(bytes(JobRequest(job_id=letter * 2000))) for letter in "ab"}
    size = len(one["a"])
    pieces = [bytes(received[at : at + size]) for at in range(0, len(received), size)]
    assert sorted(pieces) == [one["a"]] * 100 + [one["b"]] * 100


# Signs of life ----------------------------------------------------------------------------------


async def test_a_listener_keeps_its_connection_alive(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream))
        for _ in range(5):
            ping = await peer.until(PingFrame)
            ping.flags.add("ACK")
            peer.send(ping)
        peer.send(peer.data(stream, message(REPLY)))
        await peer.hang()

    async with raw_server(script) as server:
        limits = TransportLimits(keepalive_timeout=5)
        channel = connect(server.target, keepalive=0.02, limits=limits)
        async with listening(channel, timeout=5) as call:
            assert len(await call.receive()) == 1  # after five signs of life
        await channel.aclose()


async def test_a_connection_is_not_looked_at_again_before_it_can_have_been_silent(
    connect: NewChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream))
        for _ in range(2):
            ping = await peer.until(PingFrame)
            await asyncio.sleep(0.2)
            ping.flags.add("ACK")
            peer.send(ping)
        await peer.until(PingFrame)
        peer.send(peer.data(stream, message(REPLY)))
        await peer.hang()

    loop = asyncio.get_running_loop()
    call_later, timers = loop.call_later, 0

    def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_later(*args, **kwargs)

    monkeypatch.setattr(loop, "call_later", counted)
    async with raw_server(script) as server:
        limits = TransportLimits(keepalive_timeout=5)
        channel = connect(server.target, keepalive=0.3, limits=limits)
        async with listening(channel, timeout=30) as call:
            assert len(await call.receive()) == 1
        await channel.aclose()
    assert timers < 50


async def test_a_dead_server_is_given_up(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream))
        await peer.hang()  # no ping is answered

    async with raw_server(script) as server:
        limits = TransportLimits(keepalive_timeout=0.05)
        channel = connect(server.target, keepalive=0.05, limits=limits)
        async with listening(channel) as call, asyncio.timeout(15):  # 20 s and more by default
            with pytest.raises(ConnectError, match="sign of life"):
                await call.receive()
        await channel.aclose()


async def test_a_dead_server_is_given_up_while_data_waits_for_it(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({INITIAL_WINDOW_SIZE: 2**30})
        peer.send(peer.window(0, 2**30))
        await peer.request()
        peer._reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way
        await asyncio.sleep(0.5)

    async with raw_server(script) as server:
        limits = TransportLimits(keepalive_timeout=0.1)
        channel = connect(server.target, keepalive=0.1, limits=limits)
        async with listening(channel) as first, sending(channel) as second:
            with pytest.raises(ConnectError, match="sign of life"):
                while True:
                    await second.send(JobRequest(job_id="x" * 100_000))
            with pytest.raises(ConnectError, match="sign of life"):
                await first.receive()
        await channel.aclose()


async def test_a_server_that_wants_fewer_pings_gets_fewer(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        if peer.number == 0:
            await peer.until(PingFrame)
            peer.send(peer.go_away(stream, 11, b"too_many_pings"))
            peer.abort()
        peer.answer(stream, REPLY)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.until(PingFrame), 0.2)

    async with raw_server(script) as server:
        channel = connect(server.target, keepalive=0.02)
        async with listening(channel) as call:
            with pytest.raises(ConnectError, match="too_many_pings"):
                await call.receive()
        assert await unary(channel) == REPLY
        await asyncio.sleep(0.25)
        await channel.aclose()
