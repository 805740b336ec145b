"""The streams inside a FastAPI, Starlette or other ASGI application.

    streams = streamkit.asgi.app(streamkit.Server(journal="events.db", port=None))
    app = FastAPI(lifespan=streams.lifespan)
    app.mount("/streams", streams)

Its pages read `/streams/v1/updates` with EventSource, and call every method of the server with
gRPC-Web or Connect below `/streams`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from streamkit.doors.asgi import AsgiDoor, Receive, Scope, Send, refuse
from streamkit.errors import StreamkitError
from streamkit.process import overheard
from streamkit.server import Server

__all__ = ["App", "app"]

_NOT_RUNNING = "the streams do not run: give their lifespan to the application"

TokenOf = Callable[[Mapping[str, Any]], str | None]


def app(server: Server, *, token: TokenOf | None = None) -> App:
    """Return an ASGI application with the doors of a server: server-sent events below /v1/,
    gRPC-Web and Connect for all its methods. It may be mounted under any path.

    The server starts and stops with the application's lifespan; it answers gRPC on its own port,
    too, unless that is None. Pages of the application's own origin may use the doors, those of the
    server's `allow_origins` as well, under this machine's names and those of `allow_hosts`.

    Where the server has rules of access, `token(scope)` says by which of their tokens a request is
    decided, None for nobody; without it a request's own `authorization` counts.
    """
    return App(server, token)


class App:
    """A server as an ASGI application; `app` makes it."""

    def __init__(self, server: Server, token: TokenOf | None = None) -> None:
        self.server = server
        self._token = token
        self._door: AsgiDoor | None = None

    @asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[None]:
        """The context in which the server runs, as FastAPI's and Starlette's `lifespan`; also
        inside one of your own. Entering raises what `Server.start` does.

        At SIGTERM or SIGINT readers are told at once to come back: whoever serves the application
        would wait for the end of their streams.
        """
        server = self.server
        server.renew()
        async with server:
            door = self._door = AsgiDoor(*server.mounted())
            try:
                with overheard(door.leave):
                    yield
            finally:
                self._door = None
                await door.drain(server.grace)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI 3 says."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif kind != "http":
            raise ValueError(f"ASGI: {kind!r} is not answered here")
        elif (door := self._door) is None or self.server.draining:
            await refuse(send, _NOT_RUNNING)
        else:
            token = None if self._token is None else (self._token(scope) or "")
            await door.answer(scope, receive, send, token)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan of an application that is mounted nowhere."""
        await receive()
        running = self.lifespan()
        try:
            await running.__aenter__()
        except StreamkitError as error:
            hint = f" ({error.hint})" if error.hint else ""
            await send({"type": "lifespan.startup.failed", "message": f"{error}{hint}"})
            return
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            await running.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})
