"""What is owed to a peer, and to the streams of a connection, is never forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import WindowUpdateFrame

from streamkit.config import TransportLimits
from streamkit.errors import InternalError
from streamkit.generated.streamservice import Update, WriteReply, WriteRequest
from streamkit.transport.http2 import connection as module
from streamkit.transport.http2.connection import WireConnection
from tests.transport.client.calls import REPLY, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.conftest import connect as connect  # a fixture
from tests.transport.client.raw_server import Peer, raw_server
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import WRITE, message
from tests.transport.services import Writes, ask


class Slow(Writes):
    """Reads its requests when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def write(
        self, write_request_iterator: AsyncIterator[WriteRequest]
    ) -> AsyncIterator[WriteReply]:
        await self.release.wait()
        async for reply in super().write(write_request_iterator):
            yield reply


async def test_data_that_ends_its_stream_returns_to_the_connection(connect: NewChannel) -> None:
    """Answers that begin with DATA, twelve times more of it than the window of all."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(50):
            stream = await peer.request()
            peer.send(peer.data(stream, bytes(16_000)))
        peer.answer(await peer.request(), REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, limits=TransportLimits(connection_window=65_535))
        for _ in range(50):
            with pytest.raises(InternalError):
                await unary(channel)
        assert await unary(channel) == REPLY
        assert len(server.peers) == 1
        await channel.aclose()


@pytest.mark.parametrize("reading", [True, False])
async def test_nothing_is_unread_after_a_reset_inside_a_message(
    reading: bool, serve: Serve, dial: Dial
) -> None:
    server = await serve(Writes() if reading else Slow())
    client = await dial(server)
    for _ in range(3):
        head = client.headers(client.fields(WRITE))
        half = message(bytes(1000))[:700]
        client.send(head, client.data(head.stream_id, half, end=False))
        assert await client.pong()
        client.send(client.rst(head.stream_id))
        assert await client.pong()
    connection = connection_of(server)
    assert connection._unread == connection._owed == 0


async def test_what_was_withheld_is_given_back_when_it_is_read(serve: Serve, dial: Dial) -> None:
    slow = Slow()
    server = await serve(slow, connection_buffer=100_000, connection_window=200_000)
    client = await dial(server)
    assert await client.pong()

    def returned() -> int:
        updates = [f for f in client.frames if isinstance(f, WindowUpdateFrame)]
        return sum(f.window_increment for f in updates if not f.stream_id)

    head = client.headers(client.fields(WRITE))
    body = message(bytes(WriteRequest(updates=[Update(message="x" * 900)])))
    chunk = body * (10_000 // len(body))
    client.send(head)
    before = returned()
    client.send(*[client.data(head.stream_id, chunk, end=False)] * 19)
    assert await client.pong()
    # Half a window at a time: of the first 100,000 bytes one half or both, of the others nothing.
    assert returned() - before <= 100_000
    connection = connection_of(server)
    assert connection._owed > 80_000
    slow.release.set()
    client.send(client.data(head.stream_id, b""))
    assert (await client.ended(head.stream_id)).status == 0
    assert connection._owed == connection._unread == 0
    assert returned() - before >= 190_000 - 100_000 - 5


async def test_a_peer_that_is_deaf_after_it_was_cut(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads nothing and never closes: the connection is gone in the end, all the same."""
    monkeypatch.setattr(module, "_LINGER", 0.05)
    server = await serve(stall_timeout=0.2, control_backlog=1 << 26)
    client = await dial(server, {4: 2**31 - 1})
    client.send(client.window(0, 2**31 - 1 - 65_535))
    client.call(ask("big:20000000"))
    client.stop_reading()
    connection = connection_of(server)
    async with asyncio.timeout(5):
        while connection.writable:
            await asyncio.sleep(0.01)
    client.send(client.window(77, 1))  # of a stream that never was
    async with asyncio.timeout(3):
        while server.connections:
            await asyncio.sleep(0.01)
    client.read_again()


async def test_no_stream_is_forgotten_when_the_socket_is_full(serve: Serve, dial: Dial) -> None:
    """The first write of a turn fills it; every stream that waited goes on afterwards."""
    server = await serve()
    client = await dial(server, {4: 2**31 - 1})
    client.send(client.window(0, 2**31 - 1 - 65_535))
    assert await client.pong()
    connection = connection_of(server)
    full = Full(connection)
    calls = [client.call(ask("idle:" + "x" * 60_000)) for _ in range(20)]
    await asyncio.wait_for(full.filled.wait(), 5)
    full.empty()
    await client.until(lambda: all(len(client.answer(s).data) > 60_000 for s in calls))


class Full:
    """A transport that says to be full after each large write, until it is emptied."""

    def __init__(self, connection: WireConnection) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._filling = True
        self.filled = asyncio.Event()
        connection._transport = self  # type: ignore[assignment]  # as far as it is used

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self.writelines([data])

    def writelines(self, parts: Any) -> None:
        self._transport.writelines(parts)
        if self._filling and sum(map(len, parts)) > 50_000:
            self._connection.pause_writing()
            self.filled.set()

    def empty(self) -> None:
        self._filling = False
        self._connection.resume_writing()


def connection_of(server: Any) -> WireConnection:
    (protocol,) = server._connections
    connection: WireConnection = protocol.connection
    return connection
