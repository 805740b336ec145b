"""HTTP/1.1 and HTTP/2 on one port, and what a bad or slow peer of the former gets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

import streamkit
from streamkit import AsyncClient
from streamkit.config import TransportLimits
from tests.client.servers import memory_server
from tests.doors.http import ask, call, connected, head, request, send

STATUS = "/streamservice.AdminService/GetStatus"


async def test_grpc_and_http_share_the_port(server: str, client: AsyncClient) -> None:
    await client.publish("orders", "one")
    status, said = await call(server, STATUS, {})
    assert status == 200
    assert said["streams"][0] == {"name": "updates", "oldest": "1", "newest": "1"}
    assert said["version"] == streamkit.__version__


async def test_without_a_door_nothing_but_grpc_is_answered() -> None:
    get = request("GET", "/v1/updates")
    async with memory_server() as address, connected(address, get) as reply:
        assert b"HTTP/1.1 200" not in await reply.gone()


async def test_a_first_packet_may_come_byte_by_byte(server: str) -> None:
    async with connected(server, b"") as reply:
        sock = reply.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request("POST", STATUS, b"{}", content_type="application/json"):
            reply.writer.write(bytes([byte]))
            await reply.writer.drain()
            await asyncio.sleep(0)
        assert (await head(reply)).status == 200


async def test_one_connection_carries_many_requests_also_sent_ahead(server: str) -> None:
    one = request("POST", STATUS, b"{}", content_type="application/json")
    async with send(server, one * 5) as reply:
        for n in range(5):
            if n:
                await head(reply)
            assert reply.status == 200
            assert b'"version"' in await reply.body()
        reply.writer.write(request("GET", "/nothing", connection="close"))
        assert (await head(reply)).status == 404
        assert await reply.gone() == b"nothing is here\n"


async def test_a_request_waits_for_leave_to_send_its_body(server: str) -> None:
    whole = request("POST", STATUS, b"{}", content_type="application/json", expect="100-continue")
    async with send(server, whole[:-2]) as reply:
        assert reply.status == 100
        reply.writer.write(b"{}")
        assert (await head(reply)).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n", 505, id="another version"),
        pytest.param(b"HELLO\r\n\r\n", 400, id="no request line"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400, id="a space before the colon"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: localhost\r\n folded\r\nx\r\n\r\n", 400, id="no colon"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            400,
            id="two lengths",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: xchunked\r\n\r\n",
            501,
            id="an unknown transfer coding",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            400,
            id="a chunk without a size",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: localhost\r\nx: \x00\r\n\r\n", 400, id="a zero byte"
        ),
        pytest.param(b"GET /" + b"a" * 200_000, 431, id="an endless head"),
    ],
)
async def test_what_is_no_request_is_refused_and_closed(
    sent: bytes, status: int, server: str
) -> None:
    async with send(server, sent) as reply:
        assert reply.status == status
        assert reply.headers["connection"] == "close"
        await reply.gone()


async def test_a_length_and_chunks_are_not_two_requests(server: str) -> None:
    """What one reader takes for a body must not be a request to the next."""
    sent = (
        b"POST /x HTTP/1.1\r\nhost: localhost\r\n"
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    async with send(server, sent) as reply:
        assert reply.status == 400
        assert await reply.gone() == b""


QUICK = TransportLimits(preface_timeout=0.2, request_timeout=0.2, keepalive_time=0.2)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"PR", b"", id="half of a preface"),
        pytest.param(b"GET / HT", b"", id="half of a head"),
        pytest.param(
            request("POST", STATUS, b"{}", content_type="application/json")[:-1],
            b"HTTP/1.1 408",
            id="half of a body",
        ),
    ],
)
async def test_whoever_is_slow_is_gone_after_its_time(sent: bytes, answer: bytes) -> None:
    async with memory_server(web=True, limits=QUICK) as address:
        async with connected(address, sent) as reply:
            got = await reply.gone()
        assert got.startswith(answer)
        assert answer or not got
        status, _ = await call(address, STATUS, {})
        assert status == 200


async def test_silent_connections_count_and_the_server_forgets_them() -> None:
    limits = TransportLimits(max_connections=20)
    async with memory_server(web=True, limits=limits) as address:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(connected(address, b""))
            async with connected(address, request("GET", "/nothing")) as reply:
                assert await reply.gone() == b""

        async def served() -> bool:
            try:
                return bool((await call(address, STATUS, {}))[0] == 200)
            except (ConnectionError, asyncio.IncompleteReadError):
                return False

        async with asyncio.timeout(10):
            while not await served():
                await asyncio.sleep(0.01)


async def test_a_large_body_is_refused(server: str) -> None:
    size = 5 * 1024 * 1024
    head_only = (
        f"POST {STATUS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {size}\r\n\r\n"
    )
    async with send(server, head_only.encode() + b" " * size) as reply:
        assert reply.status == 429


async def test_leaving_ends_streams_and_idle_connections() -> None:
    async with AsyncExitStack() as readers:
        async with memory_server(web=True) as address:
            idle = await readers.enter_async_context(send(address, request("GET", "/nothing")))
            await idle.body()
            live = await readers.enter_async_context(send(address, request("GET", "/v1/updates")))
        assert b"event: reconnect" in await live.gone()
        assert await idle.gone() == b""


async def test_a_reader_that_goes_ends_its_call(server: str, client: AsyncClient) -> None:
    async with ask(server, "GET", "/v1/updates") as reply:
        assert reply.status == 200
        await _subscribers(client, 1)
    await _subscribers(client, 0)


async def _subscribers(client: AsyncClient, wanted: int) -> None:
    async with asyncio.timeout(10):
        while (await client.status()).streams[0].subscribers != wanted:
            await asyncio.sleep(0.01)


async def test_old_http_gets_a_body_without_chunks(server: str, client: AsyncClient) -> None:
    await client.publish("orders", "one")
    async with send(server, b"GET /v1/updates?all=1 HTTP/1.0\r\nhost: localhost\r\n\r\n") as reply:
        assert "transfer-encoding" not in reply.headers
        assert await reply.reader.readline() == b"retry: 1000\n"
