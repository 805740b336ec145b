"""Receiving large messages where they stay: from the socket into their own memory, with no copy.

A client's stream may ask for it. A peer that only announces a large message makes this side
reserve its memory, so a server does not.
"""

from __future__ import annotations

from collections import deque

from streamkit.errors import InternalError, LimitError, StreamkitError
from streamkit.framing import PREFIX, PREFIX_SIZE
from streamkit.transport.grpc.receive import TAKE, ReceiveBuffer

__all__ = ["InPlaceBuffer"]

_WORTH = 16 * 1024  # a rest of a message that is received in place; a smaller one by the way


class InPlaceBuffer(ReceiveBuffer):
    """As its base, for few and large messages: each comes out as a view of where it was received,
    read-only and never used again."""

    __slots__ = ("_filled", "_head", "_messages", "_target")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._head = bytearray()  # the prefix of the message that arrives
        self._target: memoryview | None = None  # that message
        self._filled = 0  # bytes of it that are here
        self._messages: deque[bytes | memoryview] = deque()

    def feed(self, data: bytes) -> bool:
        """Add a chunk that was received elsewhere; True when a reader has reason to look."""
        size = len(data)
        self.size += size
        position = 0
        while position < size and self._error is None:
            target = self._target
            if target is None:
                end = position + PREFIX_SIZE - len(self._head)
                self._head += data[position:end]
                position = min(end, size)
                if len(self._head) == PREFIX_SIZE:
                    self._begin()
                continue
            end = min(size, position + len(target) - self._filled)
            step = end - position
            target[self._filled : self._filled + step] = memoryview(data)[position:end]
            self._advance(step)
            position = end
        return self.ready

    def place(self, most: int) -> memoryview | None:
        """Where up to `most` bytes that come next may be received; None: give them to `feed`."""
        target = self._target
        if target is None:
            return None
        most = min(most, len(target) - self._filled)
        return target[self._filled : self._filled + most] if most >= _WORTH else None

    def placed(self, size: int) -> bool:
        """`size` bytes were received in the place; True when a reader has reason to look."""
        self.size += size
        self._advance(size)
        return self.ready

    @property
    def ready(self) -> bool:
        return bool(self._messages) or self.eof or self._error is not None

    def take(self, most: int = TAKE) -> tuple[list[bytes], int]:
        messages: list[bytes] = []
        freed = 0
        while self._messages and freed < most:
            message = self._messages.popleft()
            freed += PREFIX_SIZE + len(message)
            messages.append(message)  # type: ignore[arg-type]  # who asked for it can read views
        self.size -= freed
        if not messages:
            if self._error is None and self.eof and self.size:
                self._error = InternalError("the stream ended inside a message")
                self._error.ending = "unfinished"
            if self._error is not None:
                raise self._error
        return messages, freed

    def clear(self) -> int:
        self._messages.clear()
        self._head.clear()
        self._target = None
        return super().clear()

    def _begin(self) -> None:
        """The prefix is here: make room for its message."""
        _, length = PREFIX.unpack(self._head)
        if length > self._limit:
            self._error = LimitError(
                f"message of {length} bytes is over the limit of {self._limit}"
            )
            return
        self._target = memoryview(bytearray(length))
        self._filled = 0
        self._advance(0)

    def _advance(self, size: int) -> None:
        target = self._target
        if target is None:
            return  # dropped meanwhile
        self._filled += size
        if self._filled < len(target):
            return
        flag, _ = PREFIX.unpack(self._head)
        self._head.clear()
        self._target = None
        if not flag:
            self._messages.append(target.toreadonly())
            return
        try:
            self._messages.append(self._inflated(flag, bytes(target)))
        except StreamkitError as error:
            self._error = error
