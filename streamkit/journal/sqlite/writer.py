"""The thread that writes. While it commits, requests queue up; the next commit takes them all.

That is all there is to group commit: no timer, no waiting for company. One `call_soon_threadsafe`
per commit brings the results back to the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from streamkit.config import JournalOptions
from streamkit.errors import InternalError, StoreError
from streamkit.histogram import COMMIT_SECONDS, Histogram
from streamkit.journal.base import Stream
from streamkit.journal.sqlite.requests import Committed, Request
from streamkit.journal.sqlite.store import Store

__all__ = ["Writer"]

_GROUP = 8192
"""The most records of one transaction."""
_QUEUE = 65_536
"""Records that wait to be written; who brings more waits before the queue. Their bytes are bounded
too, by the options."""

_logger = logging.getLogger("streamkit.journal")


class Writer:
    """Runs one store in one thread. `deliver` is called on the loop with each commit, in order,
    before the callers of its requests go on; `pinned` when a reader holds the WAL back."""

    def __init__(
        self,
        path: str,
        options: JournalOptions,
        deliver: Callable[[list[Committed], dict[Stream, int]], None],
        pinned: Callable[[], None],
        store: Callable[[str, JournalOptions], Store] = Store,
    ) -> None:
        self._path = path
        self._options = options
        self._store = store
        self._deliver = deliver
        self._pinned = pinned
        self.refusal: StoreError | None = None
        """Set while nothing may be written: what writers are told."""
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Request, asyncio.Future[Any]]] = deque()
        self._queued = 0
        self._queued_bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()
        self._wake = threading.Condition()
        self._idle = False
        self._told = ""
        self.commits = Histogram(COMMIT_SECONDS)
        """How long each group of requests took to become durable."""
        self.removed: Mapping[tuple[str, str], int] = {}
        """What retention has removed."""
        self.repeats: Callable[[], int] = lambda: 0
        """Tells how many requests were repeated ones."""
        self._draining = False
        self._closing = False
        self._opened: asyncio.Future[tuple[str, dict[Stream, int], dict[Stream, int]]] = (
            self._loop.create_future()
        )
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    async def open(self) -> tuple[str, dict[Stream, int], dict[Stream, int]]:
        """Start: returns epoch, oldest and following sequences. Raises StoreError."""
        self._thread.start()
        return await asyncio.shield(self._opened)

    async def write(self, request: Request) -> Any:
        """Return the request's result once it is durable, or raise its error.

        Requests are stored in the order of the calls, also when they have to wait for room.
        """
        return await (await self.enter(request))

    async def enter(self, request: Request) -> asyncio.Future[Any]:
        """As `write`, but return when the request has its place: the future is its outcome."""
        async with self._turn:  # gives turns in order, and one that is free at once
            while self._is_full() and not self._draining:
                self._room = self._loop.create_future()
                await self._room
            if self._draining:
                raise StoreError("the journal is closed")
            if self.refusal is not None:
                raise self.refusal
            return self._put(request)

    def write_soon(self, request: Request) -> asyncio.Future[Any] | None:
        """As `write`, when there is nothing to wait for before it and nothing to refuse; None:
        there is."""
        if self._turn.locked() or self._is_full() or self._draining or self.refusal is not None:
            return None
        return self._put(request)

    async def drain(self) -> None:
        """Accept no more, and return when all that was accepted is written and delivered."""
        self._draining = True
        self._make_room()
        await self._put(Request(now=datetime.now(UTC)))

    def _put(self, request: Request) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queued += request.records
        self._queued_bytes += request.size
        self._queue.append((request, future))
        if self._idle:
            with self._wake:
                self._idle = False  # once is enough, however long the thread takes to wake
                self._wake.notify()
        return future

    def _is_full(self) -> bool:
        return (
            self._queued >= _QUEUE
            # One request is always taken, however large.
            or self._queued_bytes >= self._options.waiting_bytes
        )

    async def close(self) -> None:
        """Write what was accepted, close the store, end the thread. May be called twice."""
        self._draining = self._closing = True
        self._make_room()
        with self._wake:
            self._wake.notify()
        if self._thread.ident is not None:
            await self._ended.wait()
            self._thread.join()

    def _run(self) -> None:
        try:
            try:
                store = self._store(self._path, self._options)
            except BaseException as error:  # whoever opens raises it
                self._call(self._fail_opening, error)
                return
            self.removed, self.repeats = store.removed, store.repeats
            started = (store.epoch, dict(store.oldest), dict(store.following))
            self._call(self._finish_opening, started)
            try:
                self._serve(store)
            finally:
                store.close()
        finally:
            self._call(self._ended.set)

    def _serve(self, store: Store) -> None:
        while True:
            group = self._take(wait=not store.retaining)
            if group:
                committed = self._commit(store, [request for request, _ in group])
                self._call(self._finish, group, committed, dict(store.oldest))
            elif self._closing:
                return
            if store.retaining and not self._closing:
                self._retain(store)
                if not store.retaining:
                    self._call(self._finish, [], [], dict(store.oldest))

    def _commit(self, store: Store, requests: list[Request]) -> list[Committed]:
        """Commit; a mistake of ours fails these requests and ends nothing."""
        began = time.perf_counter()
        try:
            committed = store.commit(requests)
            self.commits.add(time.perf_counter() - began)
            return committed
        except Exception as error:  # it fails these requests and ends nothing
            _logger.exception("writing to the journal failed")
            store.undo()
            for request in requests:
                request.error = InternalError(f"the journal failed: {type(error).__name__}")
            return [Committed(requests, {})]

    def _retain(self, store: Store) -> None:
        try:
            store.retain()
        except Exception as error:  # writing goes on; the status tells it
            store.retaining = False
            text = f"{type(error).__name__}: {error}"
            if text != self._told:
                self._told = text
                _logger.exception("retention failed and is tried again")
        if store.pinned:
            self._call(self._pinned)

    def _take(self, *, wait: bool) -> list[tuple[Request, asyncio.Future[Any]]]:
        queue = self._queue
        if wait and not queue:
            with self._wake:
                # The flag is set before the queue is looked at again, and read after the queue
                # was filled: whichever comes first, one of the two sees the other.
                self._idle = True
                while not queue and not self._closing:
                    self._wake.wait()
                self._idle = False
        group = []
        weight = 0
        while queue and weight < _GROUP:
            taken = queue.popleft()
            weight += taken[0].records
            group.append(taken)
        return group

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # The loop is open for as long as close() is awaited on it; a loop that was torn down
        # without that leaves nobody to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _finish_opening(self, started: tuple[str, dict[Stream, int], dict[Stream, int]]) -> None:
        if not self._opened.done():
            self._opened.set_result(started)

    def _fail_opening(self, error: BaseException) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    def _finish(
        self,
        group: list[tuple[Request, asyncio.Future[Any]]],
        committed: list[Committed],
        oldest: dict[Stream, int],
    ) -> None:
        self._deliver(committed, oldest)
        for request, future in group:
            self._queued -= request.records
            self._queued_bytes -= request.size
            if not future.done():
                if request.error is not None:
                    future.set_exception(request.error)
                else:
                    future.set_result(request.result)
        if not self._is_full():
            self._make_room()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
