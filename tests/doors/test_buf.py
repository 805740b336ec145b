"""`buf curl`, a client of Go (grpc-go and connect-go): the three protocols over both versions of
HTTP, and our reflection, by which it finds the methods."""

from __future__ import annotations

import asyncio
import json
import sysconfig
from pathlib import Path

import pytest

from streamkit import AsyncClient

BUF = Path(sysconfig.get_path("scripts")) / "buf"
SCHEMA = str(Path(__file__).parents[2] / "schema")
SUBSCRIBE = "streamservice.StreamService/SubscribeToUpdates"
WATCH = "streamservice.StreamService/WatchJobProgress"


async def curl(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(BUF), "curl", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


KINDS = [
    ("grpc",),
    ("grpc", "--schema", SCHEMA),
    ("grpcweb", "--schema", SCHEMA),
    ("grpcweb", "--schema", SCHEMA, "--http2-prior-knowledge"),
    ("grpcweb", "--http2-prior-knowledge"),  # reflection is a stream of requests
    ("connect", "--schema", SCHEMA),
    ("connect", "--schema", SCHEMA, "--http2-prior-knowledge"),
    ("connect", "--http2-prior-knowledge"),
]


@pytest.mark.skipif(not BUF.exists(), reason="no buf here: `pip install buf-bin`")
async def test_buf_curl_is_served(server: str, client: AsyncClient) -> None:
    for n in range(3):
        await client.publish("orders", f"update {n}")
    await asyncio.gather(*(served(server, kind) for kind in KINDS))


async def served(server: str, kind: tuple[str, ...]) -> None:
    asked = json.dumps({"topics": ["orders"], "start": {"last": 2}})
    missing = await curl(
        "--protocol", *kind, "-d", '{"jobId": "nobody"}', f"http://{server}/{WATCH}"
    )
    for seconds in (3, 40):  # a busy machine starts these programs slowly
        # A subscription has no end of its own: the deadline is its end.
        limit = ("--timeout", f"{seconds}s")
        read = await curl("--protocol", *kind, *limit, "-d", asked, f"http://{server}/{SUBSCRIBE}")
        if "update 2" in read[1]:
            break
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(read[1])
    second, _ = decoder.raw_decode(read[1][end:].lstrip())
    assert [(one["message"], one["sequence"]) for one in (first, second)] == [
        ("update 1", "2"),
        ("update 2", "3"),
    ], kind
    assert read[0] != 0 and json.loads(read[2])["code"] == "deadline_exceeded", kind
    assert missing[0] != 0 and json.loads(missing[2]) == {
        "code": "not_found",
        "message": "no job 'nobody'",
    }, kind
