"""A door needs no more than an exchange, and what runs a call knows none."""

from __future__ import annotations

import ast
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from grpclib.encoding.base import CodecBase

import streamkit
from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import Status, StreamkitError
from streamkit.transport import Service
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.server.exchange import Exchange
from streamkit.transport.server.outcome import Outcome
from tests.transport.raw import PUBLISH, SUBSCRIBE
from tests.transport.server.exchange.calls import FANNED, Fan
from tests.transport.services import Writes

# A door with another codec --------------------------------------------------------------------


class Json(CodecBase):
    """Messages as a browser wants them."""

    __content_subtype__ = "json"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return json.dumps(message.to_dict()).encode()

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type().from_json(data)


class Page:
    """The smallest carrier that there can be: everything is kept in lists."""

    carrier = "page"
    user_agent = ""
    accepts: frozenset[str] = frozenset()
    headers_sent = False
    peer = "page"
    peer_certificate = None
    lost = False
    received_all = True
    unread = 0
    pending_size = 0

    def __init__(self, method: str, request: bytes, deadline: float | None = None) -> None:
        self.method = method
        self.metadata: Any = {}
        self.deadline = deadline
        self.codec = Json()
        self.body = self
        self._requests = [[request], []]
        self.lines: list[bytes] = []
        self.outcome: Outcome | None = None

    async def messages(self) -> list[bytes]:
        return self._requests.pop(0)

    def put_message(self, prefix: bytes, body: bytes) -> bool:
        assert self.headers_sent
        self.lines.append(body)
        return False

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True

    def put_status(self, outcome: Outcome) -> None:
        assert self.outcome is None
        self.outcome = outcome

    async def announced(self) -> int:
        return 0

    def fail_reading(self, error: StreamkitError) -> None: ...
    def flush_out(self) -> None: ...
    def drop_pending(self) -> None: ...
    def reset(self) -> None: ...
    def put_parts(self, parts: Any) -> bool:
        raise AssertionError("a door without gRPC's framing is given no frames")

    async def drain(self) -> None: ...
    async def flushed(self) -> None: ...


async def page(method: str, request: bytes, **settings: Any) -> Page:
    service = Service([Fan(), Writes()], StreamkitCodec(), TransportLimits())
    door = Page(method, request, **settings)
    exchange: Exchange = door  # type: ignore[assignment]  # all that is asked of one
    done = asyncio.Event()
    service.start(exchange, done.set)
    await asyncio.wait_for(done.wait(), 5)
    service.close()
    return door


async def test_a_door_needs_no_more_than_an_exchange() -> None:
    door = await page(SUBSCRIBE, b'{"topics": ["x"]}')
    found = [json.loads(line)["topic"].encode() for line in door.lines]
    assert found == [b"one", b"two", b"three", FANNED[2]]
    assert door.outcome is not None
    assert door.outcome.status is Status.OK
    for method, request, settings, status in (
        ("/no/such", b"{}", {}, Status.UNIMPLEMENTED),
        (PUBLISH, b"{}", {}, Status.OK),
        (PUBLISH, b"no json", {}, Status.INVALID_ARGUMENT),
        (PUBLISH, b"{}", {"deadline": time.monotonic() - 1}, Status.DEADLINE_EXCEEDED),
    ):
        door = await page(method, request, **settings)
        assert door.outcome is not None
        assert door.outcome.status is status


# What may be known ------------------------------------------------------------------------------


def test_what_runs_a_call_knows_no_carrier() -> None:
    """Neither HTTP/2 nor a door, however far the imports go."""
    parts = ("exchange", "context", "serving", "stream", "outcome", "replies", "checking")
    waiting = [f"streamkit.transport.server.{part}" for part in parts]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        path = Path(streamkit.__file__).parent.parent.joinpath(*name.split(".")).with_suffix(".py")
        if name in seen or not path.exists():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                waiting += [str(node.module), *(f"{node.module}.{n.name}" for n in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
        imported = {part for part in waiting if part.split(".")[0] in ("h2", "hyperframe")}
        assert not imported, (name, imported)
    known = {name for name in seen if ".http2" in name or ".doors" in name}
    assert not known
    assert "streamkit.transport.grpc.metadata" in seen
