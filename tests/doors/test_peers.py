"""Other people's clients at the doors: connect-web, connect-node, Google's grpc-web, under node."""

from __future__ import annotations

import asyncio
import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

import streamkit
from streamkit import AsyncClient

NODE = shutil.which("node") or ""
FOLDER = Path(__file__).parent / "node"
CLIENTS = [
    "connect-web json",
    "connect-web binary",
    "connect-web grpc-web",
    "connect-node connect h1",
    "connect-node connect h2",
    "connect-node grpc-web h1",
    "connect-node grpc-web h2",
    "connect-node grpc",
    "grpc-web text",
]


@pytest.mark.parametrize("which", CLIENTS)
async def test_a_foreign_client_is_served(which: str, server: str, client: AsyncClient) -> None:
    if not NODE or not (FOLDER / "node_modules").is_dir():
        pytest.skip("no peers here: `npm ci --prefix tests/doors/node`")
    async with client.log_writer("orders") as log:
        for n in range(5):
            await client.publish("orders", f"update {n}")
            await log.send(f"update {n}")
    process = await asyncio.create_subprocess_exec(
        NODE, str(FOLDER / "peer.mjs"), which, f"http://{server}",
        str(files("streamkit.generated").joinpath("descriptors.binpb")),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    assert told["version"] == streamkit.__version__
    assert told["read"] == [*(f"update {n}" for n in range(5)), "from the peer"]
    if which == "grpc-web text":
        assert told["missing"] == [5, 'no job "nobody\'s"']
        return
    assert told["missing"] == ["NotFound", 'no job "nobody\'s"']
    assert told["late"] == "DeadlineExceeded"
    assert told["wrong"] == "InvalidArgument"
