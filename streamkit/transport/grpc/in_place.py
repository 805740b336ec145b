"""Receiving large messages where they stay: from the socket into their own memory, with no copy.

A client's stream may ask for it. A peer that only announces a large message makes this side
reserve its memory, so a server does not.
"""

from __future__ import annotations

from streamkit.framing import PREFIX, PREFIX_SIZE
from streamkit.transport.grpc.receive import ReceiveBuffer

__all__ = ["InPlaceBuffer"]

_LARGE = 64 * 1024  # a message that is worth memory of its own; `bench/wire.py` has the rows
_WORTH = 16 * 1024  # a rest of one that is received in place; a smaller one by the way
_LOOKS = 64  # small messages that are passed over in search of a large one


class InPlaceBuffer(ReceiveBuffer):
    """As its base, but each large message comes out as a view of where it was received, read-only
    and never used again."""

    __slots__ = ("_filled", "_target")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._target: memoryview | None = None  # a large message of which there is more to come
        self._filled = 0  # bytes of it that are here

    def feed(self, data: bytes) -> bool:
        """Add a chunk that was received elsewhere; True when a reader has reason to look."""
        target = self._target
        if target is None:
            return super().feed(data)
        step = min(len(data), len(target) - self._filled)
        target[self._filled : self._filled + step] = memoryview(data)[:step]
        ready = self.placed(step)
        return super().feed(data[step:]) if step < len(data) else ready

    def place(self, most: int) -> memoryview | None:
        """Where up to `most` bytes that come next may be received; None: give them to `feed`."""
        if most < _WORTH or self._error is not None:
            return None
        target = self._target or self._begun()
        if target is None:
            return None
        most = min(most, len(target) - self._filled)
        return target[self._filled : self._filled + most] if most >= _WORTH else None

    def placed(self, size: int) -> bool:
        """`size` bytes were received in the place; True when a reader has reason to look."""
        target = self._target
        if target is None:
            return False  # forgotten meanwhile
        self.size += size
        self._filled += size
        if self._filled == len(target):
            self._target = None
            self._chunks.append(target.toreadonly())  # type: ignore[arg-type]  # for `_join`
        return self.size >= self._need

    def clear(self) -> int:
        self._target = None
        return super().clear()

    def _join(self) -> bytes | None:
        chunks = self._chunks
        if (
            len(chunks) > 1
            and len(chunks[0]) - self._offset == PREFIX_SIZE
            and isinstance(chunks[1], memoryview)
            and len(chunks[1]) + PREFIX_SIZE == self._need
        ):
            self.size -= self._need
            self._need = PREFIX_SIZE
            self._offset = 0
            chunks.popleft()
            return chunks.popleft()  # who asked for it can read views
        return super()._join()

    def _begun(self) -> memoryview | None:
        """Make room for the message that has begun, if it is large, and move there what is here.

        Its prefix then ends the last chunk, and the message itself will be the next one, a view.
        """
        chunks = self._chunks
        at, flag, length, looks = self._offset, 0, 0, 0
        begins = 0, 0  # the chunk that it begins in, and where in it
        for number, chunk in enumerate(chunks):
            while at < len(chunk):
                start = at + PREFIX_SIZE
                looks += 1
                if start > len(chunk) or looks > _LOOKS:
                    return None
                flag, length = PREFIX.unpack_from(chunk, at)
                begins = number, start
                at = start + length
            at -= len(chunk)
        # Now `at` is what is missing of the last message.
        if at < _WORTH or flag or not _LARGE <= length <= self._limit:
            return None
        number, start = begins
        target = memoryview(bytearray(length))
        end = self._filled = length - at
        while len(chunks) > number + 1:
            chunk = chunks.pop()
            target[end - len(chunk) : end] = chunk
            end -= len(chunk)
        target[:end] = memoryview(chunks[number])[start:]
        chunks[number] = chunks[number][:start]
        self._target = target
        return target
