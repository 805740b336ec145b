"""The doors inside applications of others, on servers of others."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import pytest

import streamkit
from streamkit import AsyncClient, Server, asgi
from streamkit.access.rules import parse_rules
from streamkit.codec import encode
from streamkit.config import TransportLimits
from streamkit.errors import PreconditionError
from streamkit.generated.streamservice import SubscribeRequest
from tests.doors.foreign import granian, hypercorn, uvicorn
from tests.doors.http import ask, call, connected, request
from tests.doors.test_events import take, texts

STATUS = "/streamservice.AdminService/GetStatus"
SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"


def fastapi_mounted(streams: asgi.App) -> Any:
    application: Any = import_module("fastapi").FastAPI(lifespan=streams.lifespan)
    application.mount("/streams", streams)
    return application


def starlette_mounted(streams: asgi.App) -> Any:
    mount = import_module("starlette.routing").Mount("/streams", streams)
    application: Any = import_module("starlette.applications").Starlette
    return application(routes=[mount], lifespan=streams.lifespan)


CARRIERS = {
    "FastAPI on uvicorn": (fastapi_mounted, uvicorn, "/streams"),
    "Starlette on hypercorn": (starlette_mounted, hypercorn, "/streams"),
    "FastAPI on granian": (fastapi_mounted, granian, "/streams"),
    "nothing on hypercorn": (lambda streams: streams, hypercorn, ""),
}


@asynccontextmanager
async def carried(
    which: str = "FastAPI on uvicorn", token: Any = None, **settings: Any
) -> AsyncIterator[tuple[str, str, Server]]:
    """Gives address, the path where the streams are mounted, and the server behind them."""
    wrap, carry, base = CARRIERS[which]
    server = Server(journal=":memory:", **{"port": 0, **settings})
    async with carry(wrap(asgi.app(server, token=token))) as address:
        yield address, base, server


@pytest.mark.parametrize("which", CARRIERS)
async def test_the_same_doors_behind_another_server(which: str) -> None:
    async with (
        carried(which) as (address, base, server),
        AsyncClient(server.address) as client,
    ):
        for n in range(4):
            await client.publish("orders", f"text {n}")
        async with ask(address, "GET", f"{base}/v1/updates?topic=orders&all=1") as reply:
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            events = await take(reply, 2)
        async with ask(
            address, "GET", f"{base}/v1/updates", last_event_id=events[-1]["id"]
        ) as reply:
            events += await take(reply, 2)
        assert texts(events) == [f"text {n}" for n in range(4)]
        status, said = await call(address, base + STATUS, {})
        assert (status, said["version"]) == (200, streamkit.__version__)
        async with ask(address, "GET", f"{base}/nothing") as reply:
            assert (reply.status, await reply.body()) == (404, b"nothing is here\n")
        body = encode(SubscribeRequest(topics=["orders"]))
        framed = b"\0" + len(body).to_bytes(4, "big") + body
        kind = "application/grpc-web+proto"
        async with ask(
            address, "POST", base + SUBSCRIBE, framed, content_type=kind, grpc_timeout="200m"
        ) as reply:
            assert b"grpc-status: 4\r\n" in await reply.body()
        async with ask(address, "GET", f"{base}/v1/updates?last=x") as reply:
            assert (reply.status, b"is no number" in await reply.body()) == (400, True)


@pytest.mark.parametrize("which", CARRIERS)
async def test_a_reader_that_goes_ends_its_call(which: str) -> None:
    async with (
        carried(which) as (address, base, server),
        AsyncClient(server.address) as client,
    ):

        async def subscribers(wanted: int) -> None:
            async with asyncio.timeout(10):
                while (await client.status()).streams[0].subscribers != wanted:
                    await asyncio.sleep(0.01)

        async with ask(address, "GET", f"{base}/v1/updates") as reply:
            assert reply.status == 200
            await subscribers(1)
        await subscribers(0)


async def test_a_reader_that_takes_nothing_holds_little_and_is_cut() -> None:
    limits = TransportLimits(stall_timeout=0.5, send_buffer=64 * 1024)
    text = "x" * 100_000
    async with (
        carried(limits=limits) as (address, base, server),
        AsyncClient(server.address) as client,
        ask(address, "GET", f"{base}/v1/updates?topic=orders") as stalled,
        ask(address, "GET", f"{base}/v1/updates?topic=orders") as quick,
    ):
        stalled.reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way
        taking = asyncio.create_task(take(quick, 200))
        for _ in range(200):
            await client.publish("orders", text)
        assert len(await taking) == 200
        async with asyncio.timeout(10):
            while sum(call.context.method == SUBSCRIBE for call in server.calls) > 1:
                await asyncio.sleep(0.02)


async def test_pages_of_others_are_kept_out_and_ones_own_let_in() -> None:
    async with carried(allow_origins=["https://app.example"]) as (address, base, _):
        ours = {"host": address, "origin": f"http://{address}", "sec_fetch_site": "same-origin"}
        assert (await call(address, base + STATUS, {}, **ours))[0] == 200
        for headers, status in (
            ({"origin": "https://app.example", "sec_fetch_site": "cross-site"}, 200),
            ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, 403),
            ({"host": "rebound.example"}, 421),
        ):
            async with ask(
                address, "POST", base + STATUS, b"{}", content_type="application/json", **headers
            ) as reply:
                assert reply.status == status


async def test_who_somebody_is_may_come_from_the_application() -> None:
    secret = "sk_ann_" + "a" * 43
    digest = hashlib.sha256(secret.encode()).hexdigest()
    rules = parse_rules(
        f'[[token]]\nid = "ann"\nsha256 = "{digest}"\nroles = ["buyer"]\n'
        '[role.buyer]\nsubscribe = ["orders.*"]\n'
    )

    def token(scope: Any) -> str | None:
        return secret if (b"cookie", b"user=ann") in scope["headers"] else None

    async with carried(access=rules, token=token) as (address, base, _):
        for target, headers, status in (
            (f"{base}/v1/updates?topic=orders.eu", {"cookie": "user=ann"}, 200),
            (f"{base}/v1/updates?topic=stock", {"cookie": "user=ann"}, 403),
            (f"{base}/v1/updates?topic=orders.eu", {"authorization": f"Bearer {secret}"}, 401),
        ):
            async with ask(address, "GET", target, **headers) as reply:
                assert reply.status == status, target


async def test_bodies_are_bounded_in_bytes_and_time() -> None:
    limits = TransportLimits(request_timeout=0.3, max_message=1 << 20)
    async with carried(limits=limits) as (address, base, _):
        large = b" " * (2 << 20)
        kind = "application/json"
        async with ask(address, "POST", base + STATUS, large, content_type=kind) as reply:
            assert reply.status == 429
        half = request("POST", base + STATUS, b"{}", content_type=kind)[:-1]
        async with connected(address, half) as reply:
            async with asyncio.timeout(10):
                assert b" 408 " in await reply.reader.readline()


async def test_without_its_lifespan_it_says_what_is_missing() -> None:
    streams = asgi.app(Server(journal=":memory:", port=None))
    sent = await _asked(streams, "/v1/updates")
    assert sent[0]["status"] == 503
    assert b"give their lifespan to the application" in sent[1]["body"]
    for _ in range(2):  # an application is started as often as its tests want
        async with streams.lifespan():
            assert streams.server.address == "" and streams.server.port == 0
            assert (await _asked(streams, "/nothing"))[0]["status"] == 404
    with pytest.raises(PreconditionError):
        streams.server.mounted()
    with pytest.raises(ValueError, match="other"):
        await streams({"type": "other"}, _never, _never)


async def _never(*_: Any) -> Any:
    await asyncio.Event().wait()


async def _asked(streams: asgi.App, path: str) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    await streams(scope, _never, send)
    return sent


async def test_a_start_that_fails_is_told_to_the_server() -> None:
    streams = asgi.app(Server(journal="/nowhere/at/all.db", port=None))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await streams({"type": "lifespan"}, receive, send)
    [failed] = sent
    assert failed["type"] == "lifespan.startup.failed" and "/nowhere" in failed["message"]


@pytest.mark.parametrize("how", ["cancelled", "told", "refused to send"])
async def test_the_handler_has_ended_when_its_request_has(how: str) -> None:
    streams = asgi.app(Server(journal=":memory:", port=None))
    begun, told = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        await told.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        begun.set()
        if how == "refused to send":
            raise OSError("closed")

    scope = {
        "type": "http", "method": "GET", "path": "/v1/updates", "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    async with streams.lifespan():
        journal = streams.server.journal
        assert journal is not None
        answering = asyncio.ensure_future(streams(scope, receive, send))
        await asyncio.wait_for(begun.wait(), 10)
        if how == "cancelled":
            answering.cancel()
        elif how == "told":
            told.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(answering, 10)
        assert journal.subscribers(streamkit.Stream.UPDATES) == 0


async def test_leaving_tells_all_readers_to_come_back() -> None:
    streams = asgi.app(Server(journal=":memory:", port=None))
    async with AsyncExitStack() as readers, uvicorn(fastapi_mounted(streams)) as address:
        replies = [
            await readers.enter_async_context(ask(address, "GET", "/streams/v1/updates"))
            for _ in range(20)
        ]
        door = streams._door
        assert door is not None
        door.leave()
        for reply in replies:
            assert b"event: reconnect" in await reply.body()
        async with ask(address, "GET", "/streams/v1/updates") as reply:
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
