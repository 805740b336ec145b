"""Log lines that outlast a server: through a writer while it is there, on disk while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from uuid import uuid4

from streamkit.client.writing.spool import Spool, records_of, request_of
from streamkit.client.writing.writers import LogWriter
from streamkit.errors import StreamkitError
from streamkit.generated.streamservice import LogEntry, WriteRequest

__all__ = ["SpooledWriter"]

_PATIENCE = 1.0
"""Seconds that a server which went away is waited for in memory alone."""
_LOOK = 0.25
"""Seconds between two looks at whether the disk is to be used by now."""


class SpooledWriter:
    """Sends lines in order, each once, from memory or disk. One task of the writer's loop uses it.

    Requests carry their own number, so what was sent before a break and is found on disk by a
    later process is stored once all the same.
    """

    def __init__(self, writer: LogWriter, spool: Spool, producer: str) -> None:
        self.spool = spool
        self._writer = writer
        self._producer = producer
        self._number = 0
        self._away_since: float | None = None
        self._spooled = asyncio.Event()
        self._held: WriteRequest | None = None
        """A request that found no room yet."""

    @staticmethod
    def new_producer() -> str:
        return uuid4().hex

    def noticed(self, *, away: bool) -> None:
        """The server was lost, or has answered."""
        if not away:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()

    async def put(self, entries: Sequence[LogEntry]) -> None:
        """Take lines in; waits while neither the writer nor the disk has room. Raises what ended
        the writer."""
        self._held = self._request(entries)
        pump = self._writer.pump
        try:
            while not self._take(self._held):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await pump.room()
        except StreamkitError:
            self._held = None
            raise
        self._held = None

    @property
    def held(self) -> int:
        """Lines that were taken in and have found no room yet."""
        return 0 if self._held is None else len(self._held.logs)

    async def move(self) -> None:
        """What waits on disk goes as soon as the server takes it. Ends only by cancellation, and
        by what ends the writer."""
        while True:
            await self._spooled.wait()
            while (request := self.spool.first()) is not None:
                await self._writer.pump.put_request(records_of(request), request.producer.sequence)
                self.spool.take()
            self._spooled.clear()

    async def flush(self) -> None:
        """Wait until everything taken in is stored, as long as an outage lasts."""
        while self.spool.lines or self._held is not None:
            if self._writer.pump.ended:
                break
            await asyncio.sleep(0.005)
        await self._writer.flush()

    def keep(self, entries: Iterable[LogEntry]) -> int:
        """Leave what was not stored, and these lines, for a later process; how many lines that is.

        0: there is nothing, or no disk that takes it. The writer must not be closed before.
        """
        before = self._writer.pump.outbox.unsettled()
        after = [] if self._held is None else [self._held]
        if rest := list(entries):
            after.append(self._request(rest))
        lines = self.spool.lines + sum(len(request.logs) for request in (*before, *after))
        return lines if lines and self.spool.keep(before, after) else 0

    def _request(self, entries: Sequence[LogEntry]) -> WriteRequest:
        self._number += 1
        return request_of(self._producer, self._number, entries)

    def _take(self, request: WriteRequest) -> bool:
        if not self.spool.lines:
            if self._writer.pump.try_request(records_of(request), request.producer.sequence):
                return True
            since = self._away_since
            if since is None or asyncio.get_running_loop().time() - since < _PATIENCE:
                return False
        if not self.spool.put(request):
            return False
        self._spooled.set()
        return True
