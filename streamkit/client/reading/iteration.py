"""An async generator that outlives a cancelled `anext`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Generic, Self, TypeVar, cast

__all__ = ["Iteration"]

T = TypeVar("T")


class Iteration(Generic[T]):
    """Iterates over what `make` makes, and on over another one when that was cancelled.

    A plain async generator is at its end after `asyncio.wait_for(anext(rows), 1)` has run out of
    time, and looks as if all had been read. `make` must go on where its last generator stopped.
    Close it with `contextlib.aclosing`, or drop it.
    """

    def __init__(self, make: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._make = make
        self._running = cast(AsyncGeneratorType[T, None], make())
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[T]:
        if self._running.ag_frame is None and not self._closed:
            self._running = cast(AsyncGeneratorType[T, None], self._make())
        return self._running.__anext__()

    async def aclose(self) -> None:
        """End it for good."""
        self._closed = True
        await self._running.aclose()
