"""Where a connection's bytes are received: in a room of the thread's, or where they belong."""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

__all__ = ["InPlaceProtocol", "wasteful"]

_ROOM = 256 * 1024
_PEEK = 4 * 1024


class _Receiver(Protocol):
    """What a connection's protocol does with what comes in."""

    def data_received(self, data: bytes) -> None: ...
    @property
    def large_next(self) -> bool: ...
    def place(self) -> memoryview | None: ...
    def placed(self, size: int) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class _Rooms(threading.local):
    """Each thread has one room: its connections receive one after the other."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(_ROOM))


_ROOMS = _Rooms()


def wasteful(transport: asyncio.BaseTransport) -> bool:
    """Whether the transport is better told where to receive in any case: asyncio's own allocate
    256 KiB each time, which the system maps and unmaps for the smallest message."""
    own = type(transport).__module__.startswith("asyncio.")
    return own and transport.get_extra_info("sslcontext") is None


class InPlaceProtocol(asyncio.BufferedProtocol):
    """Takes a connection's protocol's place at its transport, to tell where bytes are to go."""

    __slots__ = ("_inner", "_placed", "_room", "places")

    def __init__(self, inner: _Receiver) -> None:
        self._inner = inner
        self._room = _ROOMS.room
        self._placed = False
        self.places = False
        """Whether to ask for the place of what comes next."""

    @classmethod
    def take_over(cls, inner: _Receiver, transport: asyncio.Transport) -> InPlaceProtocol:
        """Receive for `inner` from now on."""
        receiver = cls(inner)
        transport.set_protocol(receiver)
        # uvloop looks at the kind of its protocol only when it begins to read.
        transport.pause_reading()
        transport.resume_reading()
        return receiver

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.places:
            place = self._inner.place()
            self._placed = place is not None
            if place is not None:
                return place
            # What is read with the head of a frame is copied, so not too much of a large one.
            if self._inner.large_next:
                return self._room[:_PEEK]
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        if self._placed:
            self._inner.placed(nbytes)
        else:
            self._inner.data_received(bytes(self._room[:nbytes]))

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
