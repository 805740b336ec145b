"""Which of several addresses a channel takes, and when."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import HeadersFrame

from streamkit.codec import StreamkitCodec
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import (
    ProducerServiceBase,
    PublishRequest,
    WriteReply,
)
from streamkit.testing import FaultProxy
from streamkit.transport import Channel, GrpcServer
from streamkit.transport.client import addresses
from streamkit.transport.client.addresses import Addresses, Endpoint
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, raw_server
from tests.transport.inside import pool_of

PUBLISH = "/streamservice.ProducerService/Publish"


class Numbered(ProducerServiceBase):
    """Says which server it is."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        return WriteReply(producer_sequence=self.number)


@asynccontextmanager
async def numbered(number: int, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    server = GrpcServer([Numbered(number)], codec=StreamkitCodec())
    await server.start(host, port)
    try:
        yield server.addresses[0]
    finally:
        await server.close()


async def who(channel: Channel) -> int:
    reply = await channel.unary(PUBLISH, PublishRequest(), WriteReply, timeout=5)
    return reply.producer_sequence


async def alone(channel: Channel) -> None:
    """Wait until no connection is left."""
    while pool_of(channel)._alive:
        await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.transport.client.addresses.random.shuffle", lambda _: None)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each address a head start that no test can outwait."""
    monkeypatch.setattr(addresses, "HEAD_START", 1000.0)


@asynccontextmanager
async def black_hole(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """An address where attempts to connect vanish."""
    with socket.socket() as dead:
        dead.bind((host, port))
        dead.listen(0)  # with one in it, Linux drops every further SYN
        with socket.create_connection(dead.getsockname()):
            yield f"{host}:{dead.getsockname()[1]}"


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """An address where connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("bad", [black_hole, silent])
async def test_one_that_does_not_answer_costs_a_head_start(bad: Any, connect: NewChannel) -> None:
    async with bad() as first, numbered(2) as second:
        channel = connect(f"{first},{second}")
        began = asyncio.get_running_loop().time()
        assert await who(channel) == 2
        assert asyncio.get_running_loop().time() - began < 3
        assert pool_of(channel).connection is not None
        assert len(pool_of(channel)._alive) == 1  # the other attempt is over


async def test_one_that_refuses_costs_nothing(patient: None, connect: NewChannel) -> None:
    async with numbered(2) as second:
        assert await who(connect(f"127.0.0.1:1,{second}")) == 2


async def test_the_first_that_answers_is_kept(patient: None, connect: NewChannel) -> None:
    async with numbered(1) as first, numbered(2) as second:
        channel = connect(f"{first},{second}")
        assert [await who(channel) for _ in range(3)] == [1, 1, 1]


async def test_one_that_went_away_is_tried_last_for_a_while(
    patient: None, connect: NewChannel
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(numbered(1))
        proxy = await stack.enter_async_context(FaultProxy(first))
        second = await stack.enter_async_context(numbered(2))
        channel = connect(f"{proxy.address},{second}")
        clock = 1000.0
        pool_of(channel)._addresses._clock = lambda: clock
        assert await who(channel) == 1
        proxy.cut()
        await alone(channel)
        assert await who(channel) == 2
        clock += 1.0
        await channel.reset()
        await alone(channel)
        # Both went away: the one that did so longer ago comes first.
        assert await who(channel) == 1
        clock += 1.0
        await channel.reset()
        await alone(channel)
        assert await who(channel) == 2
        clock += 10.0
        await channel.reset()
        await alone(channel)
        clock += 10.0
        assert await who(channel) == 1


async def test_one_that_drains_is_left(patient: None, connect: NewChannel) -> None:
    first = GrpcServer([Numbered(1)], codec=StreamkitCodec())
    await first.start("127.0.0.1", 0)
    async with numbered(2) as second:
        channel = connect(f"{first.addresses[0]},{second}")
        assert await who(channel) == 1
        await first.drain(0.2)
        assert await who(channel) == 2


async def test_when_none_answers_all_reasons_are_said(
    patient: None, connect: NewChannel, tmp_path: Path
) -> None:
    channel = connect(f"127.0.0.1:1,unix:{tmp_path}/none")
    with pytest.raises(ConnectError) as caught:
        await who(channel)
    text = caught.value.message
    assert text.startswith(f"cannot connect to {channel.target}: ")
    assert "127.0.0.1:1: Connection refused" in text
    assert "No such file" in text


async def test_the_authority_follows_the_connection(connect: NewChannel) -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.until(HeadersFrame)
        seen.append(frame.headers[":authority"])  # type: ignore[attr-defined]  # read by the tests
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(f"127.0.0.1:1,{server.target}")
        with pytest.raises(Exception, match="deadline"):
            await channel.unary(PUBLISH, PublishRequest(), WriteReply, timeout=0.3)
        assert seen == [server.target]
        await channel.aclose()


# Names --------------------------------------------------------------------------------------------


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        family = socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)


async def test_a_name_whose_first_address_is_a_black_hole(
    connect: NewChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with numbered(1) as good:
        port = int(good.rpartition(":")[2])
        async with black_hole("127.0.0.2", port):
            resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
            channel = connect(f"two.example:{port}")
            began = asyncio.get_running_loop().time()
            assert await who(channel) == 1
            assert asyncio.get_running_loop().time() - began < 3


async def test_a_name_of_several_servers(
    patient: None, connect: NewChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each address of dns:/// is a server: one that went away is not the first to be tried."""
    async with numbered(1) as first:
        port = int(first.rpartition(":")[2])
        async with numbered(2, "127.0.0.2", port):
            resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
            channel = connect(f"dns:///two.example:{port}")
            seen = [await who(channel)]
            await channel.reset()
            await alone(channel)
            seen.append(await who(channel))
            assert sorted(seen) == [1, 2]


async def test_a_name_that_is_not_found(connect: NewChannel) -> None:
    for name in ("no-such-name.invalid:1", "\udce4:1", "a" * 300 + ":1"):
        with pytest.raises(ConnectError, match="cannot connect"):
            await who(connect(name))


async def test_what_comes_too_late_is_given_up() -> None:
    """Both answer in the same moment: one is taken, the other one is closed."""
    found = Addresses("a:1,b:1")
    go = asyncio.Event()
    late: list[str] = []

    async def resolve(address: Any) -> list[Endpoint]:
        return [Endpoint(address, address.host)]

    found._resolve = resolve  # type: ignore[method-assign]  # looked up by the test
    started = asyncio.Semaphore(0)

    async def dial(endpoint: Endpoint) -> str:
        started.release()
        await go.wait()
        return endpoint.place

    task = asyncio.create_task(found.connect(dial, late.append))
    await started.acquire()
    await started.acquire()
    go.set()
    won = await task
    assert {won, *late} == {"a", "b"}


async def test_a_cancelled_connect_leaves_nothing() -> None:
    found = Addresses("a:1")
    ended = asyncio.Event()
    began = asyncio.Event()

    async def resolve(address: Any) -> list[Endpoint]:
        return [Endpoint(address, address.host)]

    found._resolve = resolve  # type: ignore[method-assign]  # looked up by the test

    async def dial(endpoint: Endpoint) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(found.connect(dial, print))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_number_is_not_asked_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the number needs no thread that asks a resolver."""

    async def getaddrinfo(*asked: object, **more: object) -> Any:
        raise AssertionError(asked)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    async def dial(endpoint: Endpoint) -> str:
        return endpoint.place

    place = await Addresses(f"{host}:50051").connect(dial, lambda _: None)
    assert place == host.strip("[]")
