"""A server stream that survives its connection.

    async with ResumingCall(channel, "/shop.Orders/Watch", WatchRequest, Order,
                            request_from=lambda number: WatchRequest(after=number or 0),
                            position_of=lambda order: order.number) as orders:
        async for order in orders: ...

A broken stream is opened again with a request for what follows the last record taken, after a
delay that grows until there is progress. Records that come twice are dropped. Any service whose
request can say "after this one" can be read like that; streamkit's own streams are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from streamkit.client.events import ClientEvent, OnEvent, tell
from streamkit.client.reading.cursor import Cursor, KeyCursor
from streamkit.client.retry import Retry
from streamkit.errors import ConnectError, StreamkitError

if TYPE_CHECKING:
    from streamkit.transport import Channel, ClientCall

__all__ = ["Reconnect", "ResumingCall"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Reconnect:
    """How a call comes back: shared settings, one `Retry` for each call."""

    def __init__(
        self,
        retry: Callable[[], Retry] = Retry,
        *,
        enabled: bool = True,
        patient: bool = False,
        on_event: OnEvent | None = None,
        open_timeout: float = 20.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.retry = retry
        self.enabled = enabled
        self.patient = patient
        """Whether a server that is not there at the first attempt is waited for."""
        self.on_event = on_event
        self.open_timeout = open_timeout
        self.sleep = sleep


class ResumingCall(Generic[Request, Reply]):
    """One unary -> stream call, made as often as it takes. Async context manager and iterator.

    Iterate with `async for`, or take whole batches with `receive()`; not both at once, and by one
    task at a time. Leaving the context, breaking out of a bare `async for`, and cancelling the
    task end the call at once; no task of its own is ever running.

    `idle_timeout`: a stream that is silent for so long is taken for dead; only of use where the
    server sends heartbeats. `confirm`: entering the context waits for the server's headers.
    Raises StreamkitError classes only; with `reconnect.enabled` only those that a repetition
    cannot help.
    """

    def __init__(
        self,
        channel: Channel,
        path: str,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        request_from: Callable[[Any], Request] | None = None,
        position_of: Callable[[Reply], Any] | None = None,
        cursor: Cursor[Request, Reply] | None = None,
        reconnect: Reconnect | None = None,
        idle_timeout: float | None = None,
        confirm: bool = False,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        if cursor is None:
            if request_from is None or position_of is None:
                raise TypeError("give request_from and position_of, or a cursor")
            cursor = KeyCursor(request_from, position_of)
        self._channel = channel
        self._path = path
        self._types = request_type, reply_type
        self._cursor = cursor
        self._reconnect = reconnect or Reconnect()
        self._retry = self._reconnect.retry()
        self._idle_timeout = idle_timeout
        self._confirm = confirm
        self._metadata = metadata
        self._timeout = timeout
        self._stack = AsyncExitStack()
        self._call: ClientCall[Request, Reply] | None = None
        self._headers_seen = False
        self._was_open = False
        self._owned = False
        self._ended = False
        self._batch: list[Reply] = []
        self._rest = iter(self._batch)
        """Over the batch: how far it is handed out. Counting would cost more than the handing."""

    async def __aenter__(self) -> Self:
        self._owned = True
        if self._confirm:
            await self._until_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the call at once. The stream cannot be used again; may be called twice."""
        self._ended = True
        await self._drop()

    async def __aiter__(self) -> AsyncGenerator[Reply, None]:
        try:
            while True:
                for record in self._rest:
                    yield record
                self._batch = await self.receive()
                self._rest = iter(self._batch)
                if not self._batch:
                    return
        finally:
            if not self._owned:
                await self.close()

    async def receive(self) -> list[Reply]:
        """All the records that are here, at least one; [] once the stream has ended."""
        if rest := list(self._rest):
            return rest
        task = asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        while not self._ended:
            if self._cursor.finished():
                await self.close()
                break
            try:
                call = await self._open()
                async with asyncio.timeout(self._idle_timeout):
                    messages = await call.receive()
                if not self._headers_seen:
                    await self._read_headers(call)
                if messages:
                    fresh = self._cursor.take(messages)
                    self._retry.progress()
                    if fresh:
                        return fresh
                elif self._cursor.complete():
                    await self.close()
                else:
                    raise ConnectError("the server ended the stream")
            except TimeoutError:
                # Nothing else on this connection can be alive either.
                await self._fail(ConnectError(f"nothing heard for {self._idle_timeout:g} s"), True)
            except StreamkitError as error:
                if task is not None and task.cancelling() > cancelling:
                    # The connection broke in the moment of the cancellation, which must win.
                    await self.close()
                    raise asyncio.CancelledError from error
                await self._fail(error)
        return []

    @property
    def _next(self) -> Reply | None:
        """The first record that arrived and was not handed out yet."""
        left = length_hint(self._rest)
        return self._batch[-left] if left else None

    # ---- attempts ----

    async def _until_open(self) -> None:
        while not self._ended:
            try:
                await self._open()
                return
            except StreamkitError as error:
                await self._fail(error)

    async def _open(self) -> ClientCall[Request, Reply]:
        if self._call is not None:
            return self._call
        self._headers_seen = False
        call = await self._stack.enter_async_context(
            self._channel.stream(
                self._path,
                *self._types,
                request=self._cursor.request(),
                timeout=self._timeout,
                metadata=self._metadata,
            )
        )
        self._call = call
        if self._confirm:
            try:
                async with asyncio.timeout(self._reconnect.open_timeout):
                    await self._read_headers(call)
            except TimeoutError:
                message = f"no answer within {self._reconnect.open_timeout:g} s"
                raise ConnectError(message) from None
        return call

    async def _read_headers(self, call: ClientCall[Request, Reply]) -> None:
        self._cursor.opened(await call.initial_metadata())
        self._headers_seen = True
        name = self._path.rpartition("/")[2]
        event = ClientEvent("resumed" if self._was_open else "connected", name)
        self._was_open = True
        tell(self._reconnect.on_event, event)

    async def _fail(self, error: StreamkitError, dead: bool = False) -> None:
        """End the attempt and wait for the next one; raises the error if there is none."""
        trailers = getattr(self._call, "trailing_metadata", None)
        await self._drop()
        if dead:
            await self._channel.reset()
        how = self._reconnect
        refused = isinstance(error, ConnectError) and not (self._was_open or how.patient)
        delay = None if refused or not how.enabled else self._retry.delay(error, trailers)
        if delay is None:
            self._ended = True
            raise error
        name = self._path.rpartition("/")[2]
        tell(how.on_event, ClientEvent("lost", f"{name}: {error}", error=error))
        tell(how.on_event, ClientEvent("reconnecting", name, delay=delay))
        await how.sleep(delay)

    async def _drop(self) -> None:
        self._call = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
