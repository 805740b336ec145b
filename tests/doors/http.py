"""A client of HTTP/1.1 that sends exactly what a test says and shows exactly what came."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 10.0


@dataclass
class Reply:
    """A response whose head is here; the body comes as it comes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def chunk(self) -> bytes:
        """The next chunk; b"" at the end of the body."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readline(), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
            return data

    async def body(self) -> bytes:
        """The whole body."""
        async with asyncio.timeout(PATIENCE):
            if "content-length" in self.headers:
                return await self.reader.readexactly(int(self.headers["content-length"]))
        found = b""
        while data := await self.chunk():
            found += data
        return found

    async def events(self) -> AsyncIterator[dict[str, str]]:
        """Server-sent events as their fields; comments and empty ones too."""
        text = ""
        while data := await self.chunk():
            text += data.decode()
            *whole, text = text.split("\n\n")
            for part in whole:
                lines = (line.partition(":") for line in part.split("\n"))
                yield {name: value.removeprefix(" ") for name, _, value in lines}

    async def gone(self) -> bytes:
        """What comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""  # it was closed with bytes unread


@asynccontextmanager
async def connected(address: str, data: bytes) -> AsyncIterator[Reply]:
    """Send bytes on a new connection."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    try:
        writer.write(data)
        yield Reply(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def send(address: str, data: bytes) -> AsyncIterator[Reply]:
    """Send bytes on a new connection and read the first response's head."""
    async with connected(address, data) as reply:
        yield await head(reply)


async def head(reply: Reply) -> Reply:
    """Read the next head of the same connection."""
    async with asyncio.timeout(PATIENCE):
        raw = await reply.reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    reply.status = int(first.split(" ")[1])
    reply.headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    return reply


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request; underscores in names of headers are hyphens."""
    fields = {"host": "localhost"} | {n.replace("_", "-"): v for n, v in headers.items()}
    if method == "POST":
        fields["content-length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body


@asynccontextmanager
async def ask(
    address: str, method: str, target: str, body: bytes = b"", /, **headers: str
) -> AsyncIterator[Reply]:
    """One request on a connection of its own."""
    async with send(address, request(method, target, body, **headers)) as reply:
        yield reply


async def call(address: str, method: str, message: dict[str, Any], **headers: str) -> Any:
    """A unary call in JSON; returns the status and what came."""
    headers = {"content_type": "application/json"} | headers
    async with ask(address, "POST", method, json.dumps(message).encode(), **headers) as reply:
        return reply.status, json.loads(await reply.body())
