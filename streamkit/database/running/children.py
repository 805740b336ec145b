"""The server's side of the processes in which statements run; see nursery.py.

Everything here belongs to one event loop and never blocks it.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from streamkit.config import QueryLimits
from streamkit.database.base import Source
from streamkit.database.running.parcels import (
    LENGTHS,
    Ended,
    Household,
    Parcel,
    Request,
    unpacked,
)
from streamkit.database.running.processes import NURSERY
from streamkit.database.sources.sqlite.spill import spilled
from streamkit.errors import InternalError, LimitError, StreamkitError

__all__ = ["LOST", "Child", "Children"]

LOST = Ended(reusable=False)
"""What a child that is gone tells."""

_WAITING = 2
"""Parcels that wait for their reader; then the child waits, and so its cursor."""
_LARGEST = 256 << 20
_REQUESTS = 1000
"""After so many a child is replaced: what libraries keep for themselves does not add up."""
_DYING_SECONDS = 0.2
_DISK_INTERVAL = 0.5
_log = logging.getLogger(__name__)


class Child:
    """One process, which answers one request at a time."""

    def __init__(
        self, number: int, peer: socket.socket, on_lost: Callable[[Child], None], *, light: bool
    ) -> None:
        self.number = number
        self.nursery = NURSERY.number
        self.light = light
        """Made before what only long results need was loaded."""
        self.requests = 0
        self.lost = False
        self._socket = peer
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._told: deque[Parcel | Ended] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        self._header = 0
        self._expect(LENGTHS.size, 0)
        self._read(True)

    async def ask(self, request: Request) -> None:
        """Send a request. A child that is lost meanwhile tells so by `next`."""
        self.requests += 1
        data = pickle.dumps(request)
        with suppress(OSError):  # `next` tells that it is lost
            head = LENGTHS.pack(self.requests, len(data))
            await self._loop.sock_sendall(self._socket, head + data)

    def there(self) -> bool:
        """Whether an idle child has not ended, which the loop may not have noticed yet."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def cancel(self) -> None:
        """Ask the child to end its request soon; what it tells until then is to be read."""
        with suppress(OSError):  # `next` tells that it is lost
            self._socket.send(LENGTHS.pack(self.requests, 0))
        self._wake()

    async def next(self, timeout: float | None = None) -> Parcel | Ended | None:
        """What the child tells next; LOST once it is gone; None when it was cancelled meanwhile.

        Raises TimeoutError; nothing is lost by that.
        """
        if not self._told and not self.lost:
            self._waiter = self._loop.create_future()
            async with asyncio.timeout(timeout):
                await self._waiter
        if not self._told:
            return LOST if self.lost else None
        told = self._told.popleft()
        self._read(not self.lost)
        return told

    def close(self) -> None:
        """Forget the child; it ends when it looks at its socket, if not before."""
        if not self.lost:
            self.lost = True
            self._read(False)
            self._socket.close()
            self._wake()

    def _expect(self, size: int, header: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._have = 0
        self._header = header

    def _read(self, wanted: bool) -> None:
        if wanted and not self._reading:
            self._loop.add_reader(self._socket, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._socket)
        self._reading = wanted

    def _readable(self) -> None:
        """Take what is there, up to the end of one parcel: the loop has others to serve."""
        try:
            while True:
                size = self._socket.recv_into(self._view[self._have :])
                if not size:
                    return self._on_lost(self)
                self._have += size
                if self._have == len(self._buffer) and self._whole():
                    return None
        except (BlockingIOError, InterruptedError):
            return None
        except Exception as error:  # what it sends is its own: the child is not to be trusted
            if not isinstance(error, OSError):
                _log.warning("a query's process sent what is no parcel: %s", error)
            return self._on_lost(self)

    def _whole(self) -> bool:
        """Use what has arrived; whether that was a parcel's end."""
        if not self._header:
            header, data = LENGTHS.unpack(self._buffer)
            if header + data > _LARGEST:
                raise ValueError(f"{header + data} bytes")
            self._expect(header + data, header)
            return False
        told = unpacked(self._view[: self._header], self._view[self._header :])
        self._expect(LENGTHS.size, 0)
        self._told.append(told)
        if len(self._told) >= _WAITING:
            self._read(False)
        self._wake()
        return True

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Children:
    """Processes that wait for statements, one ready ahead of the next."""

    def __init__(self, sources: Mapping[str, Source], limits: QueryLimits) -> None:
        self._household = pickle.dumps(Household(dict(sources), limits))
        self._modules = [module for source in sources.values() for module in source.modules()]
        self._later = [module for source in sources.values() for module in source.later()]
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._idle: list[Child] = []
        self._busy: dict[Child, Callable[[StreamkitError], None]] = {}
        self._making: set[asyncio.Task[Child]] = set()
        self._watching: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def numbers(self) -> set[int]:
        """The process numbers of the children."""
        return {child.number for child in (*self._idle, *self._busy)}

    async def prepare(self) -> None:
        """Have a child ready, so that a first query does not wait for it."""
        with suppress(StreamkitError):  # a query will say so
            self.give(await self.take(lambda error: None))

    async def take(self, stop: Callable[[StreamkitError], None]) -> Child:
        """A child for one request. `stop` is called with the reason to end it, if there is one.

        Raises InternalError when no process can be made.
        """
        while self._idle and not self._idle[-1].there():
            self._lost(self._idle[-1])
        child = self._idle.pop() if self._idle else await self._made()
        self._busy[child] = stop
        if not self._idle and not self._making:
            self._make(light=child.light).add_done_callback(self._keep)
        if self._watching is None:
            self._watching = self._loop.call_later(_DISK_INTERVAL, self._watch)
        return child

    def give(self, child: Child, *, reusable: bool = True) -> None:
        """A child has ended its request."""
        self._busy.pop(child, None)
        outdated = child.requests >= _REQUESTS or (child.light and self._idle)
        if self._closed or not reusable or child.lost or outdated:
            self.end(child)
        else:
            self._idle.append(child)
            if child.light and not self._making:
                self._make(light=False).add_done_callback(self._keep)

    async def orphaned(self, child: Child) -> bool:
        """Whether the process that made the child, which is lost, has ended, and so the child with
        it. A process that dies ends its children before it is seen to be dead."""
        until = asyncio.get_running_loop().time() + _DYING_SECONDS
        while child.nursery == NURSERY.number and NURSERY.alive():
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(_DYING_SECONDS / 10)
        return True

    def end(self, child: Child) -> None:
        """End a child at once, whatever it does."""
        self._busy.pop(child, None)
        if not child.lost:
            NURSERY.end(child.number)
            child.close()

    def retire(self) -> None:
        """Take no more requests: each child ends with the one that it has."""
        self._closed = True
        for child in tuple(self._idle):
            self.end(child)
        self._idle.clear()

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        if self._making:
            await asyncio.wait(self._making)
        for child in (*self._idle, *self._busy):
            self.end(child)
        self._idle.clear()

    async def _made(self) -> Child:
        making = self._make(light=True)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._keep)  # somebody else will have it
            raise

    def _make(self, *, light: bool) -> asyncio.Task[Child]:
        making = asyncio.create_task(self._fork(light and not NURSERY.has(self._later)))
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        return making

    async def _fork(self, light: bool) -> Child:
        modules = self._modules if light else [*self._modules, *self._later]
        try:
            number, peer = await asyncio.to_thread(_forked, modules)
            peer.setblocking(False)
            head = LENGTHS.pack(0, len(self._household))
            await self._loop.sock_sendall(peer, head + self._household)
        except OSError as error:
            _log.error("no process can be made for queries: %s", error)
            raise InternalError("no process could be made for the query") from None
        return Child(number, peer, self._lost, light=light)

    def _keep(self, making: asyncio.Task[Child]) -> None:
        if not making.cancelled() and making.exception() is None:
            self.give(making.result())

    def _lost(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
        child.close()

    # ---- what they take together ----

    def _watch(self) -> None:
        """End the query with most on the disk when all together have too much."""
        self._watching = None
        if self._busy:
            self._watching = self._loop.call_later(_DISK_INTERVAL, self._watch)
            sizes = {child: spilled(child.number) for child in self._busy}
            if 0 < self._limits.max_spill < sum(sizes.values()):
                self._busy[max(sizes, key=sizes.__getitem__)](
                    LimitError(
                        f"queries need more than {self._limits.max_spill} bytes of temporary"
                        " files, the server's limit"
                    )
                )


def _forked(modules: list[str]) -> tuple[int, socket.socket]:
    NURSERY.load(modules)
    return NURSERY.fork()
