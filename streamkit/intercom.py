"""Frames between two processes of one server, over a socket that both were born with.

Either side tells the other something, or asks and awaits the answer. What one side sends arrives
in order, answers among the rest: an answer never comes before what was told before it.
"""

from __future__ import annotations

import asyncio
import marshal
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from streamkit.errors import ConnectError, Status, StreamkitError, error_named

__all__ = ["Intercom", "error_from", "parts_of"]

_HEAD = struct.Struct("!BQI")
"""The kind; the number of a question and of its answer, else 0; the length of what follows."""
_ANSWER, _ERROR = 0, 1
_READ = 256 * 1024


class Intercom(asyncio.BufferedProtocol):
    """One end of the socket. What a frame holds is anything that `marshal` can write: the other
    side is the same program, started by this one or having started it.

    `on_told(kind, value)` gets what is told, `on_asked(kind, value, reply)` questions, which it
    answers by `reply(value)` or `reply(error)`, now or later; kinds are from 2 to 255. `on_full`
    and `on_empty` say that more than `high` bytes wait for the other side to read, and that few
    do; what is sent between them waits, too. `on_lost` is called once, when the other side is gone
    or `close` was called: whoever awaits an answer then gets a ConnectError.
    """

    def __init__(
        self,
        *,
        on_told: Callable[[int, Any], None] = lambda kind, value: None,
        on_asked: Callable[[int, Any, Callable[[Any], None]], None] | None = None,
        on_full: Callable[[], None] = lambda: None,
        on_empty: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        high: int = 1 << 20,
    ) -> None:
        self._on_told = on_told
        self._on_asked = on_asked
        self._on_full = on_full
        self._on_empty = on_empty
        self._on_lost = on_lost
        self._high = high
        self._transport: asyncio.Transport | None = None
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self._buffer = bytearray(_READ)
        self._filled = 0
        self.closed = False

    async def start(self, sock: socket.socket) -> None:
        """Begin on one end of a pair of sockets, which this owns from now on."""
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    # ---- saying ----

    def tell(self, kind: int, value: Any) -> None:
        """Send something that wants no answer. Nothing happens once the other side is gone."""
        self._send(kind, 0, value)

    def ask(self, kind: int, value: Any) -> asyncio.Future[Any]:
        """Send a question; the future has the answer, or the error that it was answered with."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.closed:
            future.set_exception(_gone())
            return future
        self._count += 1
        self._questions[self._count] = future
        self._send(kind, self._count, value)
        return future

    def close(self) -> None:
        """End it for both sides. May be called twice."""
        if self._transport is not None:
            self._transport.close()

    def _send(self, kind: int, number: int, value: Any) -> None:
        if self.closed or self._transport is None:
            return
        data = marshal.dumps(value)
        self._transport.write(_HEAD.pack(kind, number, len(data)) + data)

    def _replier(self, number: int) -> Callable[[Any], None]:
        def reply(value: Any) -> None:
            if isinstance(value, StreamkitError):
                self._send(_ERROR, number, parts_of(value))
            else:
                self._send(_ANSWER, number, value)

        return reply

    # ---- hearing ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has its own
        transport.set_write_buffer_limits(high=self._high)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, count: int) -> None:
        self._filled += count
        buffer, end, at = memoryview(self._buffer), self._filled, 0
        needed = _HEAD.size
        while end - at >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(buffer, at)
            needed = _HEAD.size + size
            if end - at < needed:
                break
            value = marshal.loads(buffer[at + _HEAD.size : at + needed])
            at += needed
            needed = _HEAD.size
            self._take(kind, number, value)
        self._filled = end - at
        if needed > len(buffer) or (len(buffer) > _READ >= needed):
            # Another buffer, not a resized one: views of this one are still about.
            room = bytearray(max(needed, _READ, self._filled))
            room[: self._filled] = buffer[at:end]
            self._buffer = room
        elif at:
            buffer[: self._filled] = bytes(buffer[at:end])

    def _take(self, kind: int, number: int, value: Any) -> None:
        if kind in (_ANSWER, _ERROR):
            future = self._questions.pop(number, None)
            if future is not None and not future.done():
                if kind == _ANSWER:
                    future.set_result(value)
                else:
                    future.set_exception(error_from(value))
        elif number:
            assert self._on_asked is not None
            self._on_asked(kind, value, self._replier(number))
        else:
            self._on_told(kind, value)

    def pause_writing(self) -> None:
        self._on_full()

    def resume_writing(self) -> None:
        self._on_empty()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        questions, self._questions = self._questions, {}
        for future in questions.values():
            if not future.done():
                future.set_exception(_gone())
                future.exception()  # whoever asked may be gone, too
        self._on_lost()


def parts_of(error: StreamkitError) -> tuple[str, str, str, int]:
    """An error as plain values."""
    return type(error).__name__, error.message, error.hint, error.status.value


def error_from(parts: tuple[str, str, str, int]) -> StreamkitError:
    """The error that `parts_of` was given."""
    name, message, hint, status = parts
    return error_named(name, message, hint, Status(status))


def _gone() -> ConnectError:
    return ConnectError("the other process of this server is gone")
