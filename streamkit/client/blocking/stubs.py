"""Generated stubs for code without an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

from streamkit.client.blocking.portal import Portal

__all__ = ["SyncReplies", "SyncStub"]

_END: Any = object()
Reply = TypeVar("Reply")


class SyncStub:
    """The methods of a generated stub, each run on the client's own loop.

    A method with one reply returns it, one with a stream of them returns an iterator; requests come
    from any iterable, which is read in a thread of its own.
    """

    def __init__(self, kind: type, ready: Callable[[], tuple[Portal, Any]]) -> None:
        """`ready` makes the stub, or finds it, with the portal to its loop."""
        self._kind = kind
        self._ready = ready

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = None if name.startswith("_") else getattr(self._kind, name, None)
        if not callable(method):
            raise AttributeError(f"{self._kind.__name__} has no method {name!r}")
        streams = inspect.isasyncgenfunction(method)

        def call(*requests: Any, **options: Any) -> Any:
            portal, stub = self._ready()
            bound = getattr(stub, name)
            sent = [_requests(request) for request in requests]
            if streams:
                return SyncReplies(portal, bound(*sent, **options))
            return portal.run(bound(*sent, **options))

        call.__name__ = name
        call.__doc__ = method.__doc__
        return call

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._kind) if not name.startswith("_")]


class SyncReplies(Generic[Reply]):
    """The replies of one call, in the order in which they come.

    Closing it, leaving it as a context manager and letting go of it end the call.
    """

    def __init__(self, portal: Portal, replies: AsyncIterator[Reply]) -> None:
        self._portal = portal
        self._replies = replies
        self._over = False

    def __iter__(self) -> Iterator[Reply]:
        return self

    def __next__(self) -> Reply:
        if self._over:
            raise StopIteration
        try:
            found: Reply = self._portal.run(_next(self._replies))
        except BaseException:
            self.close()
            raise
        if found is _END:
            self._over = True
            raise StopIteration
        return found

    def close(self) -> None:
        """End the call, if it has not ended."""
        if not self._over:
            self._over = True
            self._portal.finish(self._replies.aclose())  # type: ignore[attr-defined]  # a generator

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


async def _next(replies: AsyncIterator[Any]) -> Any:
    return await anext(replies, _END)


def _requests(request: Any) -> Any:
    """A stream of requests, in a form that the loop need not wait for; anything else as it is."""
    if hasattr(request, "SerializeToString") or not isinstance(request, Iterable):
        return request
    return _pulled(iter(request))


async def _pulled(requests: Iterator[Any]) -> AsyncIterator[Any]:
    while (request := await asyncio.to_thread(next, requests, _END)) is not _END:
        yield request
