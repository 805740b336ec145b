"""What a Client stands on: its private loop and the asynchronous client that lives there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.portal import Portal, abandon
from streamkit.client.blocking.stubs import SyncStub
from streamkit.errors import ConnectError

if TYPE_CHECKING:
    from streamkit.transport import ServiceStub

__all__ = ["Blocking"]

Twin = TypeVar("Twin")
"""What a stub is without an event loop."""


class Blocking:
    """Makes loop, thread and client at the first call in a process, and ends them."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._running: tuple[Portal, AsyncClient] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every stream and writer, the loop and its thread. May be called twice."""
        self._closed = True
        running, self._running = self._running, None
        if running is None:
            return
        portal, client = running
        if portal.pid != os.getpid():
            abandon(running)
            return
        if portal.gone:
            return
        try:
            portal.run(client.close())
        finally:
            portal.close()

    @overload
    def stub(
        self,
        kind: type[ServiceStub[Twin]],
        *,
        timeout: float | None = ...,
        metadata: Mapping[str, str] | None = ...,
    ) -> Twin: ...

    @overload
    def stub(
        self,
        kind: type,
        *,
        timeout: float | None = ...,
        metadata: Mapping[str, str] | None = ...,
    ) -> Any: ...

    def stub(
        self,
        kind: type,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """A generated stub of a service of your own, on this client's connection.

        Its methods are those of `kind` without `async`: one reply is returned, a stream of replies
        is an iterator (SyncReplies). `timeout` and `metadata` are those of calls that have none.
        For type checkers it is what `streamkit gen` wrote beside the stub: OrdersSyncStub for
        OrdersStub.
        """
        made: dict[AsyncClient, Any] = {}

        async def make(client: AsyncClient) -> Any:
            return client.stub(kind, timeout=timeout, metadata=metadata)

        def ready() -> tuple[Portal, Any]:
            portal, client = self._ready()
            if client not in made:  # there is another one in a forked child
                made.clear()
                made[client] = portal.run(make(client))
            return portal, made[client]

        return SyncStub(kind, ready)

    def _ready(self) -> tuple[Portal, AsyncClient]:
        """The loop and the client of this process, made at the first call in it."""
        running = self._running
        if running is not None and running[0].pid == os.getpid():
            return running
        with self._lock:
            if self._closed:
                raise ConnectError("the client is closed")
            running = self._running
            if running is not None and running[0].pid != os.getpid():
                abandon(running)
                running = None
            if running is None:
                running = self._running = (Portal(), self._make())
            return running
