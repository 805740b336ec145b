"""What the connections of one server write in a turn of the event loop.

Where an event wakes a thousand readers, each puts the same bytes into its response. They leave
together: one callback for all of them, and the chunk around the bytes is made once.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from streamkit.transport.log import LOG

__all__ = ["Outbox"]

_KEPT = 512 * 1024
"""The longest chunk that is kept for the next who writes the same."""


class _Sender(Protocol):
    """Who has something to write when the loop comes around."""

    def flush_soon(self) -> None:
        """Write it."""
        ...

    def broken(self) -> None:
        """A fault here may end this response, and no other one."""
        ...


class Outbox:
    """One for all connections of a door."""

    def __init__(self) -> None:
        self._waiting: list[_Sender] = []
        self._data: bytes | memoryview = b""
        self._chunk = b""

    def add(self, sender: _Sender, loop: asyncio.AbstractEventLoop) -> None:
        """Let it write when the loop comes around. Once, until it has."""
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(sender)

    def chunk(self, data: bytes | memoryview) -> bytes:
        """Return bytes as a chunk of HTTP/1.1."""
        if data is self._data:
            return self._chunk
        chunk = b"".join((b"%x\r\n" % len(data), data, b"\r\n"))
        if len(chunk) <= _KEPT:
            self._data, self._chunk = data, chunk
        return chunk

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sender in waiting:
            try:
                sender.flush_soon()
            except Exception as error:  # it ends this response only
                LOG.warning("fault while writing a response", repr(error), error)
                sender.broken()
