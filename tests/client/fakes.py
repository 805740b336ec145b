"""A channel without a network: each call is played by an async generator of the test.

The generator is given path and request. It may first yield a dict (the initial metadata), then
lists of messages; returning ends the call well, raising a StreamkitError ends it with that error
(its `trailers` attribute, if any, becomes the trailing metadata). `Hold` waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from streamkit.errors import StreamkitError

HOLD = object()

Play = Callable[[str, Any], AsyncIterator[Any]]


class FakeCall:
    def __init__(self, channel: FakeChannel, play: AsyncIterator[Any]) -> None:
        self._channel = channel
        self._play = play
        self._metadata: Mapping[str, object] | None = None
        self._early: list[Any] | None = None
        self._rest: list[Any] = []
        self.trailing_metadata: Mapping[str, object] | None = None

    @property
    def begun(self) -> bool:
        return bool(self._metadata)

    async def __aenter__(self) -> FakeCall:
        self._channel.open_calls.add(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._channel.open_calls.discard(self)
        await self._play.aclose()  # type: ignore[attr-defined]  # a generator

    async def _next(self) -> Any:
        try:
            item = await anext(self._play)
        except StopAsyncIteration:
            return []
        except StreamkitError as error:
            self.trailing_metadata = getattr(error, "trailers", {})
            raise
        if item is HOLD:
            await asyncio.Event().wait()
        return item

    async def initial_metadata(self) -> Mapping[str, object]:
        if self._metadata is None:
            item = await self._next()
            if isinstance(item, dict):
                self._metadata = item
            else:
                self._metadata, self._early = {}, item
        return self._metadata

    def __aiter__(self) -> FakeCall:
        return self

    async def __anext__(self) -> Any:
        if not self._rest:
            self._rest = await self.receive()
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop(0)

    async def receive(self) -> list[Any]:
        if self._rest:
            rest, self._rest = self._rest, []
            return rest
        await self.initial_metadata()
        if self._early is not None:
            early, self._early = self._early, None
            return early
        received: list[Any] = await self._next()
        return received


class FakeChannel:
    def __init__(self, play: Play, answer: Callable[[str, Any], Awaitable[Any]] | None = None):
        self._play = play
        self._answer = answer
        self.requests: list[Any] = []
        self.open_calls: set[FakeCall] = set()
        self.resets = 0
        self.closing = asyncio.Event()

    def stream(
        self, path: str, request_type: type, reply_type: type, *, request: Any, **_: object
    ) -> FakeCall:
        self.requests.append(request)
        return FakeCall(self, self._play(path, request))

    async def unary(self, path: str, request: Any, reply_type: type, **_: object) -> Any:
        assert self._answer is not None
        self.requests.append(request)
        return await self._answer(path, request)

    async def reset(self) -> None:
        self.resets += 1

    async def aclose(self) -> None:
        assert not self.open_calls
