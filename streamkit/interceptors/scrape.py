"""The port that Prometheus reads: HTTP/1.1, one answer a connection, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from streamkit.config import ScrapeLimits
from streamkit.errors import InvalidArgumentError
from streamkit.listening import explained

__all__ = ["answer_scrapes"]

log = logging.getLogger(__name__)

_HEAD = (
    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
    "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
)


async def answer_scrapes(
    text: Callable[[str], tuple[bytes, str]],
    address: str,
    limits: ScrapeLimits | None = None,
) -> asyncio.Server:
    """Listen, and answer GET /metrics with what `text` (called in a thread with the Accept header)
    returns. ConnectError for an address that cannot be had."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise InvalidArgumentError(f"metrics: give host:port, not {address!r}")
    limits = limits or ScrapeLimits()
    open_now = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now <= limits.connections:
                async with asyncio.timeout(limits.seconds):
                    writer.write(await _answer(reader, text))
                    await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # whoever asks badly is not answered
        finally:
            open_now -= 1
            with suppress(OSError):  # the peer is gone
                writer.close()

    with explained(address):
        return await asyncio.start_server(
            serve, host.strip("[]"), int(port), limit=limits.head_bytes
        )


async def _answer(reader: asyncio.StreamReader, text: Callable[[str], tuple[bytes, str]]) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, _, rest = first.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return _reply("405 Method Not Allowed", b"only GET\n", "text/plain")
    if path != "/metrics":
        return _reply("404 Not Found", b"see /metrics\n", "text/plain")
    headers = {name.strip().lower(): value.strip() for name, _, value in map(_pair, lines)}
    try:
        body, kind = await asyncio.to_thread(text, headers.get("accept", ""))
    except Exception as error:  # of a figure: the others' server goes on, and this is told
        log.error("the figures cannot be made: %s: %s", type(error).__name__, error)
        return _reply("500 Internal Server Error", b"see the server's log\n", "text/plain")
    reply = _reply("200 OK", body, kind)
    return reply if method == "GET" else reply[: -len(body)]


def _pair(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def _reply(status: str, body: bytes, kind: str) -> bytes:
    return _HEAD.format(status=status, kind=kind, length=len(body)).encode() + body
