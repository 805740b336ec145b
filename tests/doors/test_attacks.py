"""What is sent to hurt: requests hidden in others, floods, peers that take their time.

None of it reaches a handler, and a bystander goes on being answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpclib.const import Cardinality, Handler

from streamkit import AsyncClient, Server
from streamkit.config import TransportLimits
from streamkit.doors.door import WebDoor
from streamkit.doors.http import http1
from streamkit.generated.streamservice import JobRequest, Update
from tests.client.servers import until
from tests.doors.http import call, connected, head, request
from tests.processes import ServerProcess

STATUS = "/streamservice.AdminService/GetStatus"
HIDDEN = request("POST", STATUS, b"{}", content_type="application/json")


@asynccontextmanager
async def observed(**limits: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """A server, and the methods whose handlers were reached."""
    reached: list[str] = []

    async def note(context: Any, further: Any) -> None:
        reached.append(context.method)
        await further(context)

    settings = TransportLimits(**limits)
    async with Server(
        journal=":memory:", port=0, web=True, interceptors=[note], limits=settings
    ) as server:
        yield server.address, reached


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A request for nothing, with these lines and a body in which another one hides."""
    lines = b"".join(field + b"\r\n" for field in (b"host: localhost", *fields))
    return b"POST /nothing HTTP/" + version + b"\r\n" + lines + b"\r\n" + body + HIDDEN


SIZE = str(len(HIDDEN)).encode()
CHUNK = b"transfer-encoding: chunked"
SMUGGLED = {
    # What two readers may take for different lengths: refused.
    "two lengths": post(b"content-length: 0", b"content-length: " + SIZE),
    "two lengths in one": post(b"content-length: 0, " + SIZE),
    "a length and chunks": post(b"content-length: " + SIZE, CHUNK, body=b"0\r\n\r\n"),
    "chunks and a length": post(CHUNK, b"content-length: " + SIZE, body=b"0\r\n\r\n"),
    "a length with a sign": post(b"content-length: +0"),
    "a negative length": post(b"content-length: -1"),
    "a length in hex": post(b"content-length: 0x0"),
    "a length with an underscore": post(b"content-length: 0_0"),
    "a length in other digits": post(b"content-length: " + b"\xd9\xa0"),
    "a length that is folded": post(b"content-length:", b" 0", b"x", body=b""),
    "a space before the colon": post(b"content-length : " + SIZE),
    "a tab before the colon": post(b"transfer-encoding\t: chunked", body=b"0\r\n\r\n"),
    "chunks twice": post(CHUNK, CHUNK, body=b"0\r\n\r\n"),
    "chunks of something": post(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunks under something": post(b"transfer-encoding: chunked, identity", body=b"0\r\n\r\n"),
    "chunks behind a control": post(b"transfer-encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunks in quotes": post(b'transfer-encoding: "chunked"', body=b"0\r\n\r\n"),
    "a chunk with a sign": post(CHUNK, body=b"+0\r\n\r\n"),
    "a chunk in hex": post(CHUNK, body=b"0x0\r\n\r\n"),
    "a chunk behind spaces": post(CHUNK, body=b"  0\r\n\r\n"),
    "two sizes of a chunk": post(CHUNK, body=b"0 0\r\n\r\n"),
    "a huge chunk": post(CHUNK, body=b"f" * 100 + b"\r\n"),
    "no end of a chunk": post(CHUNK, body=b"5\r\nhelloXX0\r\n\r\n"),
    "a chunk that ends early": post(CHUNK, body=b"3\r\nhello\r\n0\r\n\r\n"),
    "a bare line feed in a size": post(CHUNK, body=b"0;\n\n0\r\n\r\n"),
    "a trailer that is none": post(CHUNK, body=b"0\r\nnot a field\r\n\r\n"),
    "a zero byte in a name": post(b"con\x00tent-length: 0"),
    "a return in a value": post(b"x: a\rcontent-length: 0"),
    "a name with a space": post(b"content length: 0"),
    "no name": post(b": 0"),
    "words after the version": post(version=b"1.1 x"),
    "an unknown version": post(version=b"1.11"),
    "a preface of HTTP/2 later": b"\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    # One length that all readers agree about: the hidden one is a body.
    "in a body": post(b"content-length: " + SIZE),
    "in a chunk": post(CHUNK, body=b"%x\r\n" % len(HIDDEN))[: -len(b"")] + b"\r\n0\r\n\r\n",
    "with an upgrade": post(b"connection: upgrade, http2-settings", b"upgrade: h2c",
                            b"http2-settings: AAMAAABkAAQAAP__", b"content-length: " + SIZE),
}  # fmt: skip


@pytest.mark.parametrize("sent", SMUGGLED.values(), ids=SMUGGLED)
async def test_a_hidden_request_reaches_no_handler(sent: bytes) -> None:
    async with observed() as (address, reached):
        async with connected(address, sent) as reply:
            reply.writer.write_eof()
            answered = await reply.gone()
        assert reached == []
        statuses = [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]]
        assert statuses in ([b"400"], [b"404"], [b"501"], [b"505"]), statuses


@pytest.mark.parametrize("ahead", [b"", HIDDEN], ids=["first", "behind another"])
async def test_thousands_of_headers_are_not_even_read(ahead: bytes) -> None:
    flood = b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a:\r\n" * 3_000 + b"\r\n"
    async with observed() as (address, _), connected(address, ahead + flood) as reply:
        if ahead:
            assert (await head(reply)).status == 200
            await reply.body()
        assert (await head(reply)).status == 431
        assert await reply.gone() == b""


async def test_a_flood_of_chunks_is_read_in_turns_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed: list[int] = []
    turn = 0
    original = http1.Http1Call.feed

    def feed(self: http1.Http1Call, data: bytes) -> None:
        fed.append(turn)
        original(self, data)

    monkeypatch.setattr(http1.Http1Call, "feed", feed)
    lines = f"POST {STATUS} HTTP/1.1\r\nhost: localhost\r\n".encode()
    flood = lines + CHUNK + b"\r\ncontent-type: application/json\r\n\r\n" + b"1\r\nx\r\n" * 40_000
    async with observed() as (address, reached), connected(address, flood) as reply:
        answer = asyncio.create_task(head(reply))
        while not answer.done():
            turn += 1
            await asyncio.sleep(0)
        assert answer.result().status == 429
        await reply.gone()
    assert reached == []
    assert len(fed) == TransportLimits().small_chunks + 1
    assert max(fed.count(one) for one in set(fed)) <= 64


async def test_who_asks_and_takes_no_answers_is_made_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the answers would all be kept here."""
    answered = 0
    original = WebDoor.answer

    async def answer(self: WebDoor, *given: Any) -> None:
        nonlocal answered
        answered += 1
        await original(self, *given)

    monkeypatch.setattr(WebDoor, "answer", answer)
    asked = request("GET", "/logs.js") * 4_000  # 30 MB of answers
    async with observed(write_buffer=16 * 1024) as (address, _):
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(asked)
        seen = -1
        while answered != seen:  # as many as the buffers of the system hold
            seen = answered
            await asyncio.sleep(0.2)
        assert 10 < seen < 3_000
        async with asyncio.timeout(30):
            while answered < seen + 500:  # it goes on as soon as somebody reads
                await reader.read(1 << 16)
        writer.close()


@pytest.mark.parametrize("ahead", [b"", HIDDEN], ids=["first", "after an answer"])
async def test_a_head_that_comes_in_drops_has_its_time_and_no_more(ahead: bytes) -> None:
    async with observed(preface_timeout=0.3) as (address, _):
        async with connected(address, ahead) as reply:
            if ahead:
                await head(reply)
                await reply.body()
            began = time.monotonic()
            gone = asyncio.create_task(reply.gone())
            while not gone.done():
                reply.writer.write(b"G")
                await asyncio.wait([gone], timeout=0.05)
            assert time.monotonic() - began < 8  # ten seconds where nothing else is said
        assert (await call(address, STATUS, {}))[0] == 200


class Large:
    """A service with an answer that no buffer of the system holds."""

    async def get(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Update(message="x" * 16_000_000))

    def __mapping__(self) -> dict[str, Handler]:
        return {"/large.Large/Get": Handler(self.get, Cardinality.UNARY_UNARY, JobRequest, Update)}


@pytest.mark.parametrize("fields", [{}, {"connection": "close"}], ids=["goes on", "is the last"])
async def test_who_takes_nothing_of_an_answer_is_cut(fields: dict[str, str]) -> None:
    limits = TransportLimits(stall_timeout=0.3)
    ask = request("POST", "/large.Large/Get", b"{}", content_type="application/json", **fields)
    async with Server([Large()], port=0, web=True, limits=limits) as server:
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", server.port))
            stalled.sendall(ask)
            await until(lambda: server.connections == 1)
            await until(lambda: server.connections == 0)


# The long form, with figures ---------------------------------------------------------------------


async def _half_open(address: str, count: int, data: bytes, opened: ExitStack) -> None:
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    for n in range(count):
        one = opened.enter_context(socket.socket())
        one.setblocking(False)
        await loop.sock_connect(one, (host, int(port)))
        if data:
            await loop.sock_sendall(one, data)
        if n % 100 == 0:
            await asyncio.sleep(0)


async def _latencies(address: str, until: asyncio.Event) -> list[float]:
    found = []
    async with AsyncClient(address) as client:
        await client.status()
        while not until.is_set():
            began = time.perf_counter()
            await client.status()
            found.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
    return sorted(found)


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
async def test_half_open_connections_cost_little_and_nobody_else(
    count: int, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard - 500)
    stack = ExitStack()
    try:
        async with ServerProcess(journal=str(tmp_path / "store.db"), web=True) as server:
            process = psutil.Process(server.process.pid)
            async with AsyncClient(server.address) as client:
                await client.status()
                before = process.memory_info().rss
                over = asyncio.Event()
                measuring = asyncio.create_task(_latencies(server.address, over))
                await _half_open(server.address, count, b"GET / HTTP/1.1\r\nhost: lo", stack)
                async with asyncio.timeout(60):
                    while (await client.status()).connections < count:
                        await asyncio.sleep(0.01)
                cost = (process.memory_info().rss - before) / count
                over.set()
                quiet = await measuring
                print(
                    f"{count} half-open connections: {cost / 1024:.1f} KiB each, a bystander's "
                    f"call {quiet[len(quiet) // 2] * 1000:.1f} ms, p99 "
                    f"{quiet[int(len(quiet) * 0.99)] * 1000:.1f} ms"
                )
                assert cost < 32 * 1024
    finally:
        stack.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_floods_leave_a_bystander_alone(tmp_path: Path) -> None:
    """Eight attackers at a time, each as fast as it can, for ten seconds; and nobody before."""
    lines = f"POST {STATUS} HTTP/1.1\r\nhost: localhost\r\n".encode()
    floods = {
        "nothing": b"",
        "headers": b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a:\r\n" * 3_000 + b"\r\n",
        "one long header": b"GET / HTTP/1.1\r\nx: " + b"x" * 200_000,
        "chunks": lines + CHUNK + b"\r\ncontent-type: application/json\r\n\r\n"
        + b"1\r\nx\r\n" * 20_000,
        "hidden requests": SMUGGLED["a length and chunks"] * 10,
        "no HTTP": b"\x00" * 100_000,
    }  # fmt: skip

    async def attack(address: str, data: bytes, over: asyncio.Event) -> int:
        count = 0
        while not over.is_set():
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(5), connected(address, data) as reply:
                    await reply.gone()
                    count += 1
        return count

    async with ServerProcess(journal=str(tmp_path / "store.db"), web=True) as server:
        for name, flood in floods.items():
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                measuring = group.create_task(_latencies(server.address, over))
                attackers = [
                    group.create_task(attack(server.address, flood, over))
                    for _ in range(8 if flood else 0)
                ]
                await asyncio.sleep(10)
                over.set()
            found = measuring.result()
            print(
                f"{name}: {sum(one.result() for one in attackers)} attacks, a bystander's call "
                f"{found[len(found) // 2] * 1000:.1f} ms, p99 "
                f"{found[int(len(found) * 0.99)] * 1000:.1f} ms, worst {found[-1] * 1000:.0f} ms"
            )
            assert found[int(len(found) * 0.99)] < 0.25, name
