"""The doors inside somebody else's server: requests of ASGI, answered like those of our own port.

Whatever carries the application (uvicorn, hypercorn, granian) has the connection. It waits in
`send` while the reader is behind, and says in `receive` when the reader is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote

from streamkit.config import TransportLimits
from streamkit.errors import ConnectError, DeadlineError, LimitError
from streamkit.transport import Door, Visit
from streamkit.transport.grpc.metadata import Headers

__all__ = ["AsgiDoor", "Receive", "Scope", "Send", "refuse"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AsgiDoor:
    """Hands requests of ASGI to a door, and knows which are being answered."""

    def __init__(self, door: Door, limits: TransportLimits) -> None:
        self._door = door
        self._limits = limits
        self._visits: set[Visit] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining = False

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, token: str | None = None
    ) -> None:
        """Answer one request; `token` is whom it comes from, None: what it says itself.

        Cancelled, the call of the handler has ended when this has.
        """
        if self._draining:
            await refuse(send, "the server is going away")
            return
        call = AsgiCall(scope, receive, send, self._limits)
        if token is not None:
            call.headers = [pair for pair in call.headers if pair[0] != "authorization"]
            if token:
                call.headers.append(("authorization", f"Bearer {token}"))
        over = asyncio.Event()

        def done() -> None:
            over.set()
            call.leave()

        visit = self._door.accept(call, done)
        self._visits.add(visit)
        self._empty.clear()
        try:
            await call.carry()
            if call.lost:
                visit.end(None)
            await over.wait()
        except asyncio.CancelledError:
            call.lose()
            visit.end(None)
            await over.wait()
            raise
        finally:
            self._visits.discard(visit)
            if not self._visits:
                self._empty.set()
            await call.close()

    async def drain(self, grace: float) -> None:
        """Tell all readers to come back, take no more, and return when they are gone; what has
        not ended after `grace` seconds is told too."""
        self.leave()
        for everything in (False, True):
            for visit in list(self._visits):
                visit.drain(everything=everything)
            try:
                async with asyncio.timeout(grace):
                    await self._empty.wait()
                return
            except TimeoutError:
                pass

    def leave(self) -> None:
        """Take no more requests, and end what has no end of its own."""
        self._draining = True
        for visit in list(self._visits):
            visit.drain(everything=False)


class AsgiCall:
    """A WebCall that somebody else's server carries."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: TransportLimits) -> None:
        self.version = str(scope.get("http_version", "1.1"))
        self.method = str(scope["method"])
        self.target = _target(scope)
        self.headers: Headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        ]
        self.secure = scope.get("scheme") == "https"
        self.peer = _peer(scope.get("client"))
        self.peer_certificate = None
        self.peer_uid = None
        self.lost = False
        self.ended = False
        self._receive, self._send = receive, send
        self._limits = limits
        self._head: Message | None = None
        self._pending: list[bytes | memoryview] = []
        self.pending_size = 0
        self._sending = False
        self._left = False
        self._here = False
        self._due = asyncio.Event()
        self._moved = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None

    # The body of the request -------------------------------------------------------------------

    async def read(self, most: int) -> bytes:
        """As WebCall."""
        parts: list[bytes] = []
        size = 0
        seconds = self._limits.request_timeout
        try:
            async with asyncio.timeout(seconds):
                while not self._here:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self.lose()
                        raise ConnectError("the caller is gone")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._here = not message.get("more_body", False)
                    if size > most:
                        raise LimitError(f"a body of more than {most} bytes is over the limit")
        except TimeoutError:
            raise DeadlineError(f"the request did not come whole within {seconds:g} s") from None
        finally:
            self._watch()
        return b"".join(parts)

    def _watch(self) -> None:
        """See to it that a caller that goes is noticed. Until the body was read nobody may ask:
        it would be taken away."""
        if self._watcher is None and not self.lost:
            self._watcher = asyncio.create_task(self._await_loss())

    async def _await_loss(self) -> None:
        size = 0
        while size <= 2 * self._limits.max_message:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
            size += len(message.get("body", b""))  # of a body that nobody wanted
        self.lose()

    # The response ------------------------------------------------------------------------------

    def arriving(self, inflate: object) -> None:
        """As WebCall."""

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """As WebCall."""
        if self.lost:
            return
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        self._head = {"type": "http.response.start", "status": status, "headers": fields}
        self._due.set()
        self._watch()

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """As WebCall."""
        if self.lost or self.method == "HEAD":
            return False
        self._pending += parts
        self.pending_size += sum(map(len, parts))
        self._due.set()
        return self.pending_size >= self._limits.send_buffer

    def flush_out(self) -> None:
        """As WebCall: `carry` does it as soon as the reader takes more."""

    async def drain(self) -> None:
        """As WebCall."""
        await asyncio.sleep(0)
        while self.pending_size >= self._limits.send_buffer and not self.lost:
            await self._progress()

    async def flushed(self) -> None:
        """As WebCall."""
        while (self.pending_size or self._sending) and not self.lost:
            await self._progress()

    async def _progress(self) -> None:
        self._moved.clear()
        seconds = self._limits.stall_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            self.lose()
            raise LimitError(f"the peer took nothing for {seconds:g} s") from None

    def drop_pending(self) -> None:
        """As WebCall."""
        self._pending.clear()
        self.pending_size = 0

    def end(self) -> None:
        """As WebCall."""
        self.ended = True
        self._due.set()

    def reset(self) -> None:
        """As WebCall: a response without its end is one that broke off."""
        self.lose()

    # Its life ----------------------------------------------------------------------------------

    async def carry(self) -> None:
        """Send what is written until the response has ended, or nobody waits for it."""
        sender = self._sender = asyncio.create_task(self._pump())
        try:
            await asyncio.wait([sender])
        finally:
            if not sender.done():
                sender.cancel()
                await asyncio.wait([sender])
        if not sender.cancelled():
            sender.result()

    async def _pump(self) -> None:
        while not self.lost:
            await self._due.wait()
            self._due.clear()
            if self.lost:
                return
            try:
                self._sending = True
                if self._head is not None:
                    head, self._head = self._head, None
                    await self._send(head)
                while self.pending_size:
                    data = b"".join(self._pending)
                    self.drop_pending()
                    message = {"type": "http.response.body", "body": data, "more_body": True}
                    await self._send(message)
                    self._moved.set()
                if self.ended:
                    await self._send({"type": "http.response.body", "body": b""})
                    return
            except OSError:  # some servers say so that the caller is gone
                self.lose()
            finally:
                self._sending = False
                self._moved.set()
            if self._left:
                return  # whoever answers is done and has not ended it: it broke off

    def leave(self) -> None:
        """Whoever answers is done."""
        self._left = True
        self._due.set()

    def lose(self) -> None:
        """Nobody waits any more."""
        self.lost = True
        self.drop_pending()
        self._due.set()
        self._moved.set()
        if self._sender is not None and self._sending:
            self._sender.cancel()

    async def close(self) -> None:
        """Let go of everything."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
            if not watcher.cancelled():
                watcher.exception()  # of a server that is going down: nobody waits for it


async def refuse(send: Send, text: str) -> None:
    """Answer that the streams are not there now."""
    data = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]
    headers.append((b"content-length", b"%d" % len(data)))
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _target(scope: Scope) -> str:
    """Return the path below the place where the application is mounted, and the query."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    query = scope.get("query_string", b"").decode("latin-1")
    target = quote(path or "/")
    return f"{target}?{query}" if query else target


def _peer(client: Sequence[Any] | None) -> str:
    if not client or not client[0]:
        return "unix:"
    host, port = str(client[0]), client[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
