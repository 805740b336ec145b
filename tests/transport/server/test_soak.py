"""Long proofs under load: many hostile peers, few healthy ones, and what they cost."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import Frame

from streamkit.generated.streamservice import SubscribeRequest
from streamkit.transport import Framed, GrpcServer
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PREFACE, RawClient, message
from tests.transport.services import Streams, ask

pytestmark = pytest.mark.soak


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stalled_subscriber(server: GrpcServer, opening: bytes) -> socket.socket:
    """A peer that asks for a stream with large windows and never reads; outside of the loop."""
    host, _, port = server.addresses[0].rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.sendall(opening)
    return sock


class Ticker(Streams):
    """Everyone gets the same frames at the same pace."""

    def __init__(self) -> None:
        super().__init__()
        self.published = 0
        self.news = asyncio.Event()
        self.live = 0

    async def publish(self) -> None:
        while True:
            self.published += 1
            news, self.news = self.news, asyncio.Event()
            news.set()
            await asyncio.sleep(0.01)

    async def subscribe_to_updates(self, subscribe_request: SubscribeRequest) -> AsyncIterator[Any]:
        frames = Framed(message(bytes(200)) * 10, 10)
        self.live += 1
        try:
            while True:
                await self.news.wait()
                yield frames
        finally:
            self.live -= 1


async def test_stalled_subscribers_cost_little_and_harm_nobody(dial: Dial, serve: Serve) -> None:
    ticker = Ticker()
    server = await serve(ticker, stall_timeout=5.0)
    for sock in server._listeners[0].sockets:
        # Inherited by its connections: else the kernel takes megabytes before anything stalls.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    pace = asyncio.create_task(ticker.publish())
    try:
        started, count = time.monotonic(), ticker.published
        await asyncio.sleep(2)
        alone = (ticker.published - count) / (time.monotonic() - started)
        opener = RawClient()
        head = opener.headers()
        opening = (
            PREFACE
            + b"\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\xff\xff"
            + opener.window(0, 2**30).serialize()
            + head.serialize()
            + opener.data(head.stream_id, message(ask("x"))).serialize()
        )
        before, stalled = resident(), 300
        sockets = [stalled_subscriber(server, opening) for _ in range(stalled)]
        async with asyncio.timeout(10):
            while ticker.live < stalled:
                await asyncio.sleep(0.01)
        begun, count = time.monotonic(), ticker.published
        healthy = await dial(server, {4: 2**31 - 1})
        healthy.send(healthy.window(0, 2**30))
        healthy._on_frame = lambda frame: None  # type: ignore[method-assign]  # deaf to what comes
        healthy.call(ask("x"))
        await asyncio.sleep(3)
        rate = (ticker.published - count) / (time.monotonic() - begun)
        each = (resident() - before) / stalled / 1024
        async with asyncio.timeout(30):
            while ticker.live > 1:
                await asyncio.sleep(0.05)
        took = time.monotonic() - begun
        print(
            f"{stalled} stalled subscribers: {each:.0f} KiB each, publisher at {rate / alone:.0%}, "
            f"all cut after {took:.1f} s"
        )
        assert each <= 256
        assert rate >= 0.5 * alone
        for sock in sockets:
            sock.close()
    finally:
        pace.cancel()
        await asyncio.gather(pace, return_exceptions=True)


async def test_two_thousand_slow_peers(serve: Serve, dial: Dial) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    server = await serve(preface_timeout=10.0, request_timeout=10.0)
    host, _, port = server.addresses[0].rpartition(":")
    peers = []
    started = time.monotonic()
    for number in range(2000):
        sock = socket.create_connection((host, int(port)))
        if number % 2:
            sock.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x20\1\4\0\0\0\1\x82")
        peers.append(sock)
        if number % 100 == 99:
            await asyncio.sleep(0.01)
    client = await dial(server)
    good = asked = 0
    while server.connections > 1 and time.monotonic() - started < 20:
        asked += 1
        answer = await client.ended(client.call(ask("count:1")))
        good += answer.status == 0
        await asyncio.sleep(0.05)
    took = time.monotonic() - started
    for sock in peers:
        sock.close()
    print(
        f"2,000 slow peers gone after {took:.1f} s; {good}/{asked} calls of a healthy one were good"
    )
    assert server.connections == 1
    assert took < 14
    assert good == asked
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_rapid_resets(serve: Serve, dial: Dial) -> None:
    server = await serve(resets=100_000)
    other = await dial(server)
    attacker = await dial(server)
    body = message(ask("idle", client="y" * 1000))
    slowest, alone = 0.0, 0.0
    for _ in range(50):
        began = time.monotonic()
        assert (await other.ended(other.call(ask("count:1")))).status == 0
        alone = max(alone, time.monotonic() - began)
    for _ in range(50):
        frames: list[Frame] = []
        for _ in range(200):
            head = attacker.headers()
            frames += [head, attacker.data(head.stream_id, body), attacker.rst(head.stream_id)]
        attacker.send(*frames)
        began = time.monotonic()
        assert (await other.ended(other.call(ask("count:1")))).status == 0
        slowest = max(slowest, time.monotonic() - began)
    assert await attacker.pong()
    leaked = sum(len(protocol.connection.h2.streams) for protocol in server._connections)
    windows = [p.connection.h2._inbound_flow_control_window_manager for p in server._connections]
    lost = sum(w.max_window_size - w.current_window_size - w._bytes_processed for w in windows)
    print(
        f"10,000 rapid resets: {leaked} streams and {lost} bytes of window leaked, "
        f"another client's slowest call {slowest * 1000:.0f} ms (alone {alone * 1000:.0f} ms)"
    )
    assert leaked == 0
    assert lost == 0
