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
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from streamkit.client.attempts import Attempts, Reconnect
from streamkit.client.events import ClientEvent, tell
from streamkit.client.reading.cursor import Cursor, KeyCursor
from streamkit.errors import ConnectError, StreamkitError

if TYPE_CHECKING:
    from streamkit.transport import Channel, ClientCall

__all__ = ["Reconnect", "Records", "ResumingCall"]

T = TypeVar("T")
Request = TypeVar("Request")
Reply = TypeVar("Reply")

_ending: set[asyncio.Task[None]] = set()
"""What ends the calls whose iterators were dropped."""


class ResumingCall(Generic[Request, Reply]):
    """One unary -> stream call, made as often as it takes. Async context manager and iterator.

    Iterate with `async for`, or take whole batches with `receive()`; not both at once, and by one
    task at a time. Leaving the context, and dropping the iterator of a call that has none (by a
    `break`, or with its cancelled task) end the call at once; no task of its own is ever running.
    A read that is cancelled, by a time limit for instance, loses nothing and ends nothing.

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
        name = path.rpartition("/")[2]
        self._reconnect = reconnect or Reconnect()
        if cursor is None:
            if request_from is None or position_of is None:
                raise TypeError("give request_from and position_of, or a cursor")
            cursor = KeyCursor(request_from, position_of)
        if isinstance(cursor, KeyCursor) and cursor.on_life is None:
            detail = (
                f"{name}: the server began a new life; what it last said in the old one is gone"
            )
            event = ClientEvent("gap", detail)
            cursor.on_life = lambda _: tell(self._reconnect.on_event, event)
        self._channel = channel
        self._path = path
        self._types = request_type, reply_type
        self._cursor = cursor
        self._attempts = Attempts(self._reconnect, name, channel.closing, tells_loss=True)
        self._idle_timeout = idle_timeout
        self._confirm = confirm
        self._metadata = metadata
        self._timeout = timeout
        self._stack = AsyncExitStack()
        self._call: ClientCall[Request, Reply] | None = None
        self._headers_seen = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = 0.0
        """When the present call last gave a sign of life."""
        self._owned = False
        self._ended = False
        self._batch: list[Reply] = []
        self.rest = iter(self._batch)
        """What arrived and was not handed out: the only such place, for every way of reading. An
        iterator, as counting would cost more than the handing. Not for users."""

    async def __aenter__(self) -> Self:
        self._owned = True
        if self._confirm:
            try:
                await self._attempts.run(self._open, self._broke)
            except StreamkitError:
                self._ended = True
                raise
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

    def __aiter__(self) -> Records[Reply]:
        return Records(self)

    async def receive(self) -> list[Reply]:
        """All the records that are here, at least one; [] once the stream has ended.

        Cancelled, it has taken nothing: the next call gets what this one would have got.
        """
        if rest := list(self.rest):
            return rest
        if self._ended:
            return []
        try:
            return await self._attempts.run(self._take, self._broke)
        except StreamkitError:
            self._ended = True
            raise

    async def fill(self) -> bool:
        """Receive into `rest`; False at the end of the stream. Not for users."""
        self.hold(await self.receive())
        return bool(self._batch)

    def hold(self, batch: list[Reply]) -> None:
        """Hand these out next. Not for users."""
        self._batch = batch
        self.rest = iter(batch)

    @property
    def _next(self) -> Reply | None:
        """The first record that arrived and was not handed out yet."""
        left = length_hint(self.rest)
        return self._batch[-left] if left else None

    # ---- attempts ----

    async def _broke(self, error: StreamkitError) -> None:
        """An attempt failed: note what it had come to, and let go of it."""
        try:
            if (call := self._call) is not None:
                self._attempts.trailers = call.trailing_metadata
                self._cut(error, asyncio.get_running_loop().time() - self._heard)
                if call.begun and not self._headers_seen:
                    await self._read_headers(call)
        finally:
            await self._drop()

    def _cut(self, error: StreamkitError, quiet: float) -> None:
        """An open call failed, so many seconds after it was last heard of."""

    async def _take(self) -> list[Reply]:
        """The next records of the present call; [] at the end of the stream."""
        while not (self._ended or self._cursor.finished()):
            call = await self._open()
            try:
                async with asyncio.timeout(self._idle_timeout):
                    messages = await call.receive()
            except TimeoutError:
                # Nothing else on this connection can be alive either.
                await self._drop()
                await self._channel.reset()
                raise ConnectError(f"nothing heard for {self._idle_timeout:g} s") from None
            assert self._loop is not None  # since the call was opened
            self._heard = self._loop.time()
            if not self._headers_seen:
                await self._read_headers(call)
            if messages:
                fresh = self._cursor.take(messages)
                self._attempts.progress()
                if fresh:
                    return fresh
            elif self._cursor.complete():
                break
            else:
                raise ConnectError("the server ended the stream")
        await self.close()
        return []

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
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
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
        self._attempts.opened()

    async def _drop(self) -> None:
        self._call = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    def _forsake(self) -> None:
        """Whoever iterated is gone without a word: end the call. May be called by any thread."""
        loop = self._loop
        if self._ended or self._call is None or loop is None or loop.is_closed():
            return

        def end() -> None:
            task = loop.create_task(self.close())
            _ending.add(task)  # a loop itself holds its tasks weakly
            task.add_done_callback(_ending.discard)

        with suppress(RuntimeError):  # the loop was closed in this moment
            loop.call_soon_threadsafe(end)


class Records(Generic[Reply]):
    """The iterator of a resuming call. A cancelled `anext` loses nothing and ends nothing.

    Dropped without the call's context having been entered, it ends the call.
    """

    def __init__(self, call: ResumingCall[Any, Reply]) -> None:
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        call = self._call
        for record in call.rest:
            return record
        batch = await call.receive()
        if not batch:
            raise StopAsyncIteration
        call.hold(batch)
        return next(call.rest)

    async def aclose(self) -> None:
        """End the call, unless it has a context that will."""
        if not self._call._owned:
            await self._call.close()

    def __del__(self) -> None:
        if not self._call._owned:
            self._call._forsake()
