"""The configurations of docs/proxies.md, as they stand there: streams go through each."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

import streamkit
from streamkit.codec import decode, encode
from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.testing import expect
from tests.docs.pages import DOCS, blocks
from tests.doors.http import ask
from tests.proof.proxies import find, free_port

PAGE = {block.file: block.text for block in blocks(DOCS / "proxies.md") if block.file}
COMMANDS = {
    "nginx.conf": ["nginx", "-c", "{file}", "-p", "{folder}", "-e", "stderr", "-g", "{more}"],
    "haproxy.cfg": ["haproxy", "-db", "-f", "{file}"],
    "envoy.yaml": [
        "envoy", "-c", "{file}", "--concurrency", "1", "-l", "error", "--use-dynamic-base-id",
    ],
}  # fmt: skip
SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"
SILENCE = 17
"""Seconds: longer than Envoy lets a stream live by default, and thrice the short limit."""


def test_each_file_of_the_page_is_run_here() -> None:
    assert set(PAGE) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
async def test_streams_go_through(name: str, tmp_path: Path) -> None:
    async with (
        streamkit.Server(journal=":memory:", port=0, web=True) as server,
        _proxied(name, server, tmp_path) as (address, plain),
        streamkit.AsyncClient(address) as client,
        client.subscribe("orders.*") as updates,
        ask(plain, "GET", "/v1/updates?topic=orders.*") as events,
    ):
        reading = events.events()
        for number in (1, 2):
            await client.publish("orders.eu", str(number))
            [update] = await expect(updates, 1, within=10)
            assert update.message == str(number)
            async with asyncio.timeout(10):
                while "data" not in (event := await anext(reading)):
                    pass
                assert json.loads(event["data"])["message"] == str(number)


async def test_envoy_lets_grpc_web_through_to_a_server_without_web(tmp_path: Path) -> None:
    request = encode(SubscribeRequest(topics=["orders"]))
    framed = b"\0" + len(request).to_bytes(4, "big") + request
    async with (
        streamkit.Server(journal=":memory:", port=0) as server,
        _proxied("envoy.yaml", server, tmp_path) as (address, plain),
        streamkit.AsyncClient(address) as client,
        ask(plain, "POST", SUBSCRIBE, framed, content_type="application/grpc-web+proto") as reply,
    ):
        await client.publish("orders", "1")
        data = b""
        async with asyncio.timeout(10):
            while len(data) < 5 or len(data) < 5 + int.from_bytes(data[1:5], "big"):
                data += await reply.chunk()
        assert decode(Update, data[5 : 5 + int.from_bytes(data[1:5], "big")]).message == "1"


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_silent_stream_of_a_stock_client_is_left_alone(name: str, tmp_path: Path) -> None:
    async with (
        streamkit.Server(journal=":memory:", port=0, web=True) as server,
        _proxied(name, server, tmp_path) as (address, _),
        grpc.aio.insecure_channel(address) as channel,
        streamkit.AsyncClient(server.address) as direct,
    ):
        subscribe = channel.unary_stream(
            SUBSCRIBE,
            request_serializer=encode,
            response_deserializer=lambda data: decode(Update, data),
        )
        call = subscribe(SubscribeRequest(topics=["orders"]))
        await call.initial_metadata()
        await asyncio.sleep(SILENCE)
        await direct.publish("orders", "1")
        async with asyncio.timeout(10):
            assert (await call.read()).message == "1"
        call.cancel()


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_short_limit_loses_nothing(name: str, tmp_path: Path) -> None:
    lost = 0

    def seen(event: streamkit.client.ClientEvent) -> None:
        nonlocal lost
        lost += event.kind == "lost"

    async with (
        streamkit.Server(journal=":memory:", port=0, web=True) as server,
        _proxied(name, server, tmp_path, limit="5s") as (address, _),
        streamkit.AsyncClient(address, on_event=seen) as client,
        client.subscribe("orders") as updates,
    ):
        for number in range(3):
            await client.publish("orders", str(number))
            [update] = await expect(updates, 1, within=10)
            assert update.message == str(number)
            await asyncio.sleep(SILENCE)
    print(f"{name}: {lost} breaks in {3 * SILENCE} s of silence with a limit of 5 s")
    assert lost <= 2, "it did not learn to ask for signs of life"


@asynccontextmanager
async def _proxied(
    name: str, server: streamkit.Server, folder: Path, *, limit: str = "1h"
) -> AsyncIterator[tuple[str, str]]:
    """The addresses of the page's proxy before a server: of HTTP/2, and of HTTP/1.1."""
    program = find(COMMANDS[name][0])
    if program is None:
        pytest.skip(f"{COMMANDS[name][0]} is not installed")
    port = free_port()
    text = PAGE[name].replace("50051", str(server.port)).replace("8080", str(port))
    text = text.replace("0.0.0.0", "127.0.0.1").replace(f"bind :{port}", f"bind 127.0.0.1:{port}")
    text = text.replace(f"listen {port}", f"listen 127.0.0.1:{port}")
    text = text.replace("http2 on;", "http2 on; access_log off;")
    text = text.replace("1h", limit).replace("3600s", "3600s" if limit == "1h" else limit)
    plain = f"127.0.0.1:{port}"
    if _is_an_old_nginx(program):
        plain = f"127.0.0.1:{free_port()}"
        text = text.replace("http2 on;", f"listen {plain};")
        text = text.replace(f"listen 127.0.0.1:{port};", f"listen 127.0.0.1:{port} http2;")
    config = folder / name
    config.write_text(text)
    words = {"file": config, "folder": folder, "more": f"daemon off; pid {folder}/pid;"}
    process = await asyncio.create_subprocess_exec(
        program, *(word.format_map(words) for word in COMMANDS[name][1:]),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await _listening(port, process)
        yield f"127.0.0.1:{port}", plain
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if process.returncode is not None:
                    assert process.stderr is not None
                    pytest.fail((await process.stderr.read()).decode())
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def _is_an_old_nginx(program: str) -> bool:
    """Before 1.25 it says `listen ... http2`, which without TLS leaves no HTTP/1.1 there."""
    if not program.endswith("nginx"):
        return False
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in said.split("/")[1].split()[0].split(".")) < (1, 25, 1)
