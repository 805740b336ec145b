"""The relay breaks connections in exactly the way that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from streamkit.codec import StreamkitCodec
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import StreamServiceBase, SubscribeRequest, Update
from streamkit.testing import Fault, FaultProxy, connected, serve
from streamkit.transport import Channel


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """A server that sends back what it gets; gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def dial(
    proxy: FaultProxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_relays_both_ways() -> None:
    async with echo() as address, FaultProxy(address) as proxy, dial(proxy) as (reader, writer):
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert len(await reader.read(-1)) == 300_000
        assert proxy.accepted == 1
        assert proxy.delivered == 300_000


async def test_cut_ends_the_stream_in_order() -> None:
    async with echo() as address, FaultProxy(address) as proxy, dial(proxy) as (reader, writer):
        writer.write(b"abc")
        assert await reader.readexactly(3) == b"abc"
        proxy.cut()
        assert await reader.read(1) == b""


async def test_reset_is_a_reset() -> None:
    async with echo() as address, FaultProxy(address) as proxy, dial(proxy) as (reader, writer):
        writer.write(b"abc")
        await reader.readexactly(3)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


async def test_half_close_ends_one_direction_only() -> None:
    received = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            received.put_nowait(data)
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, FaultProxy(target) as proxy, dial(proxy) as (reader, writer):
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        proxy.half_close()
        assert await reader.read(1) == b""
        writer.write(b"2")
        assert await received.get() == b"1"
        assert await received.get() == b"2"


async def test_a_black_hole_passes_nothing_until_healed() -> None:
    async with echo() as address, FaultProxy(address) as proxy, dial(proxy) as (reader, writer):
        writer.write(b"1")
        await reader.readexactly(1)
        proxy.black_hole()
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        await proxy.heal()
        assert await reader.readexactly(1) == b"2"


@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_planned_fault_fires_at_its_byte(fault: Fault) -> None:
    async with echo() as address, FaultProxy(address) as proxy, dial(proxy) as (reader, writer):
        proxy.after(1234, fault)
        writer.write(b"x" * 5000)
        got = b""
        try:
            while data := await reader.read(100):
                got += data
        except ConnectionResetError:
            assert fault == "reset"
        else:
            assert fault == "cut"
            assert len(got) == 1234
        assert proxy.delivered == 1234


async def test_delay_and_single_bytes() -> None:
    async with echo() as address, FaultProxy(address) as proxy, dial(proxy) as (reader, writer):
        proxy.delay(0.05)
        proxy.chop(1)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        writer.write(b"abcdef")
        assert await reader.readexactly(6) == b"abcdef"
        assert loop.time() - begin >= 0.1


async def test_refused_and_back_on_the_same_address() -> None:
    async with echo() as address, FaultProxy(address) as proxy:
        before = proxy.address
        async with dial(proxy) as (reader, writer):
            writer.write(b"1")
            await reader.readexactly(1)
            await proxy.refuse()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        with pytest.raises(OSError):
            async with dial(proxy):
                pass
        await proxy.heal()
        assert proxy.address == before
        async with dial(proxy) as (reader, writer):
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"


async def test_an_absent_target_breaks_the_connection() -> None:
    async with FaultProxy("127.0.0.1:1") as proxy, dial(proxy) as (reader, _):
        with suppress(ConnectionResetError):
            assert await reader.read(1) == b""


class Counting(StreamServiceBase):
    """Sends numbers, as many as the client asks for by its name."""

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        for number in range(int(subscribe_request.client_id)):
            yield Update(topic="n", message=str(number))
            await asyncio.sleep(0)


async def count(channel: Channel, most: int) -> list[str]:
    request = SubscribeRequest(client_id=str(most))
    path = "/streamservice.StreamService/SubscribeToUpdates"
    async with channel.stream(path, SubscribeRequest, Update, request=request) as call:
        return [update.message async for update in call]


async def test_a_pair_of_ones_own_handlers() -> None:
    async with connected([Counting()]) as channel:
        assert await count(channel, 3) == ["0", "1", "2"]


@pytest.mark.parametrize("fault", ["cut", "reset", "half_close"])
async def test_a_broken_call_is_one_kind_of_error(fault: Fault) -> None:
    async with serve(Counting(), journal=None) as address, FaultProxy(address) as proxy:
        channel = Channel(proxy.address, codec=StreamkitCodec())
        assert len(await count(channel, 10)) == 10
        proxy.after(500, fault)
        with pytest.raises(ConnectError):
            await count(channel, 100_000)
        await channel.aclose()


async def test_single_bytes_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve(Counting(), journal=None, path=path) as address, FaultProxy(address) as proxy:
        proxy.chop(1)
        channel = Channel(proxy.address, codec=StreamkitCodec())
        assert await count(channel, 50) == [str(number) for number in range(50)]
        await channel.aclose()
