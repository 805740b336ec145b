"""A client's link to its server: the connection, single calls on it, and what they have learned."""

from __future__ import annotations

import asyncio
import os
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from streamkit import tracing
from streamkit.client.attempts import Attempts, Reconnect
from streamkit.client.events import ClientEvent, OnEvent, tell
from streamkit.client.reading.pulse import Pulse
from streamkit.client.retry import MAX_ATTEMPTS, Retry, RetryBudget
from streamkit.client.token import TokenSource, token_of
from streamkit.config import Backoff, TransportLimits
from streamkit.errors import ConnectError, DeadlineError, PreconditionError, StreamkitError
from streamkit.terms import DEFAULT_ADDRESS
from streamkit.transport import Channel
from streamkit.transport.client.service_config import ServiceConfig
from streamkit.transport.grpc.deadline import checked_seconds

__all__ = ["Link", "server_address"]

Reply = TypeVar("Reply")
Stub = TypeVar("Stub")

_FOREVER = 1e6  # seconds: a time that never ends, for clocks
MAX_MESSAGE = 32 * 1024 * 1024
"""What a client accepts; servers send more than the usual 4 MiB only when asked to."""

Closer = Callable[[], Awaitable[object]]


def server_address(address: str | None = None) -> str:
    """The address given, else $STREAMKIT_SERVER, else the usual one."""
    return address or os.environ.get("STREAMKIT_SERVER", "") or DEFAULT_ADDRESS


class Link:
    """What AsyncClient stands on: settings, one channel for each event loop, repeated calls."""

    def __init__(
        self,
        address: str | None = None,
        *,
        reconnect: bool = True,
        on_event: OnEvent | None = None,
        backoff: Backoff | None = None,
        connect_timeout: float = 20.0,
        idle_timeout: float = 45.0,
        ssl: tls.SSLContext | None = None,
        metadata: Mapping[str, str] | None = None,
        token: TokenSource | None = None,
        insecure: bool = False,
        service_config: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.address = server_address(address)
        self._token = token_of(token, self.address, encrypted=ssl is not None, insecure=insecure)
        self.client_id = uuid4().hex
        self._backoff = backoff or Backoff()
        self._budget = RetryBudget()
        self._user_on_event = on_event
        self._connect_timeout = connect_timeout
        silence = checked_seconds(idle_timeout, "idle_timeout")
        self._idle_timeout = _FOREVER if silence is None else min(silence, _FOREVER)
        self._pulse = Pulse(self._idle_timeout / 3)
        self._ssl = ssl
        self._metadata = dict(metadata) if metadata else None
        ServiceConfig.parse(service_config)  # what is wrong with it is told here and now
        self._service_config = service_config
        self._reconnect_enabled = reconnect
        self._reached = False
        """Whether the server has answered anything yet."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel_: Channel | None = None
        self._closers: set[Closer] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every stream and writer of this client, at once. May be called twice.

        Writers left open give up what they still hold; leave their own context to wait for it.
        """
        self._closed = True
        while self._closers:
            await self._closers.pop()()
        channel, self._channel_ = self._channel_, None
        if channel is not None:
            await channel.aclose()

    def stub(
        self,
        kind: Callable[..., Stub],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Stub:
        """A generated stub of a service of your own, on this client's connection.

        `timeout` and `metadata` are those of calls that have none. Its calls are made once, unless
        the client's `service_config` names them; read streams with `resume`.
        """
        merged = {**(self._metadata or {}), **(metadata or {})}
        return kind(self._channel, timeout=timeout, metadata=merged)

    # ---- inside ----

    @property
    def _channel(self) -> Channel:
        if self._closed:
            raise ConnectError("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise PreconditionError(
                    "the client belongs to another event loop that is running",
                    hint="make one client for each loop, or use streamkit.Client from threads",
                )
            # What the former loop had open went with it.
            self._loop, self._channel_ = loop, None
            self._closers.clear()
        if self._channel_ is None:
            self._channel_ = Channel(
                self.address,
                limits=TransportLimits(max_message=MAX_MESSAGE),
                ssl=self._ssl,
                connect_timeout=self._connect_timeout,
                service_config=self._service_config,
                interceptors=[
                    *([] if self._token is None else [self._token]),
                    *tracing.of_client(),
                ],
            )
        return self._channel_

    def _on_event(self, event: ClientEvent) -> None:
        if event.kind in ("connected", "resumed"):
            self._reached = True
        tell(self._user_on_event, event)

    def _reconnect(self, *, patient: bool = False) -> Reconnect:
        return Reconnect(
            lambda: Retry(self._backoff),
            enabled=self._reconnect_enabled,
            patient=patient or self._reached,
            on_event=self._on_event,
            open_timeout=self._connect_timeout,
            renewed=None if self._token is None else self._token.renewed,
        )

    async def _unary(self, path: str, request: object, reply_type: type[Reply]) -> Reply:
        """One call, repeated while that may help; every request here may safely be repeated."""
        channel = self._channel
        attempts = Attempts(
            self._reconnect(),
            path.rpartition("/")[2],
            channel.closing,
            most=MAX_ATTEMPTS,
            budget=self._budget,
        )

        async def attempt() -> Reply:
            call = channel.stream(
                path,
                type(request),
                reply_type,
                request=request,
                timeout=self._connect_timeout,
                metadata=self._metadata,
            )
            try:
                async with call:
                    reply: Reply = await call.reply()
            except DeadlineError as error:
                # No answer in all this time: the connection is dead as likely as the server slow.
                await channel.reset()
                attempts.trailers = {}
                raise ConnectError(f"no answer: {error}") from None
            except StreamkitError:
                attempts.trailers = call.trailing_metadata
                raise
            self._reached = True
            attempts.opened()
            attempts.progress()
            return reply

        return await attempts.run(attempt)
