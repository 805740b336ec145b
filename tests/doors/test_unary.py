"""Calls over Connect and gRPC-Web as bytes, and by their own Python client."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from streamkit import AsyncClient
from streamkit.codec import decode, encode
from streamkit.generated.streamservice import (
    LogRequest,
    PublishRequest,
    ServerStatus,
    StatusRequest,
    SubscribeRequest,
    Update,
)
from tests.doors.http import Reply, ask, call, request, send

STATUS = "/streamservice.AdminService/GetStatus"
TAIL = "/streamservice.StreamService/TailLogs"
SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"


def frame(data: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append((data[0], data[5 : 5 + size]))
        data = data[5 + size :]
    return found


# Connect ----------------------------------------------------------------------------------------


async def test_an_error_has_the_http_status_that_fits_and_says_what_is_wrong(server: str) -> None:
    cancel = "/streamservice.ProducerService/CancelJob"
    assert await call(server, cancel, {"jobId": "x"}) == (
        404,
        {"code": "not_found", "message": "no job 'x'"},
    )
    status, said = await call(server, cancel, {"jobId": ""})
    assert (status, said["code"]) == (400, "invalid_argument")
    assert (await call(server, cancel, {"jobId": 7}))[0] == 400
    assert (await call(server, cancel, {}, connect_timeout_ms="x"))[0] == 400
    assert (await call(server, cancel, {}, connect_protocol_version="2"))[0] == 400


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content_type": "application/json"}, b"{", 400),
        ({"content_type": "application/json"}, b"\xff", 400),
        ({"content_type": "application/json"}, b"[" * 100_000, 400),
        ({"content_type": "application/json; charset=utf-8"}, b"{}", 200),
        ({"content_type": "application/json; charset=latin-1"}, b"{}", 415),
        ({"content_type": "application/json", "content_encoding": "br"}, b"{}", 501),
        (
            {"content_type": "application/json", "content_encoding": "gzip"},
            gzip.compress(b"{}", mtime=0),
            200,
        ),
        ({"content_type": "text/plain"}, b"{}", 415),
        ({}, b"{}", 415),
        ({"content_type": "application/connect+json"}, frame(b"{}"), 415),
        ({"content_type": "application/proto"}, b"\xff", 400),
        ({"content_type": "application/proto"}, b"", 200),
    ],
)
async def test_what_a_unary_call_may_be(
    headers: dict[str, str], body: bytes, status: int, server: str
) -> None:
    async with ask(server, "POST", STATUS, body, **headers) as reply:
        assert reply.status == status, await reply.body()


async def test_protobuf_is_understood_as_well_as_json(server: str) -> None:
    body = encode(StatusRequest())
    async with ask(server, "POST", STATUS, body, content_type="application/proto") as reply:
        assert reply.headers["content-type"] == "application/proto"
        assert decode(ServerStatus, await reply.body()).version


async def test_a_server_stream_is_envelopes_and_ends_with_one(
    server: str, client: AsyncClient
) -> None:
    async with client.log_writer("api") as log:
        await log.send("one")
        await log.send("two", level="error")
    sent = frame(json.dumps({"serviceName": "api"}).encode())
    kind = "application/connect+json"
    async with ask(server, "POST", TAIL, sent, content_type=kind) as reply:
        assert reply.headers["content-type"] == kind
        *messages, (flag, end) = frames(await reply.body())
    assert [json.loads(data)["message"] for _, data in messages] == ["one", "two"]
    assert (flag, json.loads(end)) == (2, {})
    bad = frame(json.dumps({"logLevel": "loud"}).encode())
    async with ask(server, "POST", TAIL, bad, content_type=kind) as reply:
        assert reply.status == 200
        ((flag, end),) = frames(await reply.body())
    assert json.loads(end)["error"]["code"] == "invalid_argument"


async def test_a_stream_of_requests_is_answered_once_it_is_whole(server: str) -> None:
    write = "/streamservice.ProducerService/Write"
    asked = json.dumps({"updates": [{"topic": "a", "message": "b"}]}).encode()
    kind = "application/connect+json"
    async with ask(server, "POST", write, frame(asked) * 2, content_type=kind) as reply:
        assert reply.status == 200
        *replies, (flag, end) = frames(await reply.body())
    assert (flag, json.loads(end)) == (2, {})
    assert len(replies) == 2 and not any("error" in json.loads(text) for _, text in replies)
    async with ask(server, "POST", write, b"{}", content_type="application/json") as reply:
        assert reply.status == 415
    async with ask(server, "POST", write, frame(b""), content_type="application/grpc-web") as reply:
        assert b"grpc-status: 0" in await reply.body()


# gRPC-Web ---------------------------------------------------------------------------------------


async def web(server: str, method: str, message: Any, **headers: str) -> tuple[Reply, bytes]:
    headers = {"content_type": "application/grpc-web+proto"} | headers
    async with ask(server, "POST", method, frame(encode(message)), **headers) as reply:
        return reply, await reply.body()


async def test_a_call_has_its_trailers_in_a_last_frame(server: str) -> None:
    reply, body = await web(server, STATUS, StatusRequest())
    assert reply.headers["content-type"] == "application/grpc-web+proto"
    (zero, data), (flag, trailers) = frames(body)
    assert (zero, flag) == (0, 0x80)
    assert decode(ServerStatus, data).version
    assert trailers == b"grpc-status: 0\r\n"


async def test_an_error_without_a_message_is_in_the_headers(server: str) -> None:
    reply, body = await web(server, TAIL, LogRequest(log_level="lo\u00fcd"))
    assert (reply.status, body) == (200, b"")
    assert reply.headers["grpc-status"] == "3"
    assert "%C3%BC" in reply.headers["grpc-message"]
    reply, _ = await web(server, "/no.Such/Method", StatusRequest())
    assert reply.headers["grpc-status"] == "12"


async def test_text_is_base64_whose_padding_may_stand_in_the_middle(
    server: str, client: AsyncClient
) -> None:
    for n in range(3):
        await client.publish("orders", "x" * n)
    message = encode(SubscribeRequest(topics=["orders"]))
    sent = frame(message)
    body = base64.b64encode(sent[:7]) + base64.b64encode(sent[7:])
    assert b"=" in body[:-2]
    kind = "application/grpc-web-text"
    post = request("POST", SUBSCRIBE, body, content_type=kind)
    async with send(server, post) as reply:
        assert reply.headers["content-type"] == "application/grpc-web-text+proto"
        await client.publish("orders", "live")
        data = await reply.chunk()
    (one,) = frames(base64.b64decode(data))
    assert decode(Update, one[1]).message == "live"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/grpc-web", b"", "12"),
        ("application/grpc-web", frame(b"") * 2, "12"),
        ("application/grpc-web", frame(b"")[:3], "13"),
        ("application/grpc-web", frame(b"\xff"), "3"),
        ("application/grpc-web", b"\0\xff\xff\xff\xff", "8"),
        ("application/grpc-web", frame(b"x", flag=1), "13"),
        ("application/grpc-web-text", b"!!!!", "3"),
        ("application/grpc-web-text", b"=" * 100_000, "3"),
    ],
)
async def test_a_body_that_is_no_message_gets_a_status(
    kind: str, body: bytes, status: str, server: str
) -> None:
    async with ask(server, "POST", STATUS, body, content_type=kind) as reply:
        assert reply.headers["grpc-status"] == status


async def test_a_deadline_ends_a_stream(server: str) -> None:
    message = SubscribeRequest(topics=["orders"])
    _, body = await web(server, SUBSCRIBE, message, grpc_timeout="100m")
    assert b"grpc-status: 4" in body


async def test_a_compressed_message_is_read(server: str, client: AsyncClient) -> None:
    publish = "/streamservice.ProducerService/Publish"
    message = PublishRequest(updates=[Update(topic="orders", message="x" * 1000)])
    body = frame(gzip.compress(encode(message)), flag=1)
    async with ask(
        server, "POST", publish, body,
        content_type="application/grpc-web+proto", grpc_encoding="gzip",
    ) as reply:  # fmt: skip
        assert b"grpc-status: 0" in await reply.body()
    assert (await client.status()).streams[0].newest == 1


# Pages of other places ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("http://app.example", False),
        ("https://app.example.evil.com", False),
        ("https://evil-app.example", False),
        ("https://app.example:8443", False),
        ("null", False),
        ("", False),
    ],
)
async def test_only_named_origins_may_ask(origin: str, allowed: bool, server: str) -> None:
    headers = {"origin": origin, "access_control_request_method": "POST"}
    async with ask(server, "OPTIONS", STATUS, **headers) as reply:
        assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert reply.status == (204 if allowed else 403)
    kind = {"content_type": "application/json"}
    async with ask(server, "POST", STATUS, b"{}", origin=origin, **kind) as reply:
        assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
    async with ask(server, "GET", "/v1/updates", origin=origin) as reply:
        assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in reply.headers
