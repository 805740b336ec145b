"""What a stream has received and its reader has not taken: chunks in, whole messages out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from streamkit.errors import InternalError, LimitError, StreamkitError
from streamkit.framing import PREFIX, PREFIX_SIZE

__all__ = ["TAKE", "Inflated", "ReceiveBuffer"]

TAKE = 64 * 1024  # bytes of messages handed out at once: more would hold the loop for too long

Inflate = Callable[[bytes], bytes]


class Inflated(bytes):
    """A message that came compressed; its bytes are what it was before."""


class ReceiveBuffer:
    """Bytes of one stream in order, cut into gRPC messages on demand.

    A violation (too large, truncated, a flag that must not be there) is kept as `error` and
    raised only after the messages before it were handed out.
    """

    __slots__ = ("_chunks", "_error", "_limit", "_need", "_offset", "eof", "inflate", "size")

    def __init__(self, limit: int) -> None:
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # bytes of the first chunk that are taken already
        self._need = PREFIX_SIZE
        self._limit = limit
        self._error: StreamkitError | None = None
        self.size = 0
        """Bytes here."""
        self.eof = False
        """No more will come."""
        self.inflate: Inflate | None = None
        """How compressed messages are read; None refuses them."""

    def feed(self, data: bytes) -> bool:
        """Add a chunk; True when a reader has reason to look."""
        self._chunks.append(data)
        self.size += len(data)
        return self.size >= self._need

    def place(self, most: int) -> memoryview | None:
        """Where up to `most` bytes that come next are to be received; None: `feed` them."""
        return None

    def placed(self, size: int) -> bool:
        """As `feed`, of bytes that are in their place already."""
        raise NotImplementedError

    def fail(self, error: StreamkitError) -> None:
        """Raise `error` from now on, unless there is an error already."""
        if self._error is None:
            self._error = error

    @property
    def ready(self) -> bool:
        """Whether `take` has something to say: messages, an error, or the end."""
        return self.size >= self._need or self.eof or self._error is not None

    @property
    def announced(self) -> int:
        """How many bytes the next message has, at most; 0: its head is not here, or what `take`
        raises is."""
        if self.size < PREFIX_SIZE or self._error is not None:
            return 0
        head = b"".join(islice(self._chunks, PREFIX_SIZE + 1))
        flag, length = PREFIX.unpack_from(head, self._offset)
        if length > self._limit:
            return 0
        return self._limit if flag else int(length)

    def take(self, most: int = TAKE) -> tuple[list[bytes], int]:
        """Return the whole messages that are here (at least one, up to `most` bytes) and the
        bytes freed. Nothing: `ready` was False, or the stream ended well."""
        messages: list[bytes] = []
        if self._error is not None:
            raise self._error
        before = self.size
        chunks = self._chunks
        if len(chunks) == 1 and not self._offset and PREFIX_SIZE <= before <= self._limit:
            # Mostly a message comes alone and whole.
            data = chunks[0]
            flag, length = PREFIX.unpack_from(data)
            if not flag and length + PREFIX_SIZE == before:
                chunks.clear()
                self.size = 0
                return [data[PREFIX_SIZE:]], before
        try:
            while self.size >= self._need and before - self.size < most:
                joined = self._join() if self._need > PREFIX_SIZE else None
                if joined is None:
                    self._cut(self._gather(), messages)
                else:
                    messages.append(joined)
        except StreamkitError as error:
            self._error = error
            if not messages:
                raise
        if not messages and self.eof and self.size:
            self._error = InternalError("the stream ended inside a message")
            self._error.ending = "unfinished"
            raise self._error
        return messages, before - self.size

    def _join(self) -> bytes | None:
        """Remove and return one message that came in several chunks, copied once; None: it did
        not, or there is more to it."""
        chunks, offset = self._chunks, self._offset
        first = chunks[0]
        if not PREFIX_SIZE <= len(first) - offset < self._need:
            return None
        flag, length = PREFIX.unpack_from(first, offset)
        if flag or length > self._limit or length + PREFIX_SIZE != self._need:
            return None
        parts = [memoryview(first)[offset + PREFIX_SIZE :]]
        missing = length - len(parts[0])
        self._offset = 0
        chunks.popleft()
        while missing:
            chunk = chunks[0]
            parts.append(memoryview(chunk)[:missing])
            if len(chunk) > missing:
                self._offset = missing
                break
            missing -= len(chunk)
            chunks.popleft()
        self.size -= self._need
        self._need = PREFIX_SIZE
        return b"".join(parts)

    def _gather(self) -> bytes:
        """Remove and return a run of bytes that holds at least what is needed."""
        chunks = self._chunks
        first = chunks.popleft()
        if self._offset:
            first = first[self._offset :]
            self._offset = 0
        have = len(first)
        if have >= self._need:
            return first
        parts = [first]
        while have < self._need:
            chunk = chunks.popleft()
            parts.append(chunk)
            have += len(chunk)
        return b"".join(parts)

    def _cut(self, data: bytes, messages: list[bytes]) -> None:
        """Cut whole messages off `data`; what remains goes back to the front."""
        position, end = 0, len(data)
        unpack = PREFIX.unpack_from
        need = PREFIX_SIZE
        try:
            while end - position >= PREFIX_SIZE:
                flag, length = unpack(data, position)
                if length > self._limit:
                    raise LimitError(
                        f"message of {length} bytes is over the limit of {self._limit}"
                    )
                stop = position + PREFIX_SIZE + length
                if stop > end:
                    need = PREFIX_SIZE + length
                    break
                if flag:
                    messages.append(self._inflated(flag, data[position + PREFIX_SIZE : stop]))
                else:
                    messages.append(data[position + PREFIX_SIZE : stop])
                position = stop
        finally:
            self._need = need
            self.size -= position
            if position < end:
                self._chunks.appendleft(data)
                self._offset = position

    def _inflated(self, flag: int, payload: bytes) -> bytes:
        if flag != 1:
            raise InternalError(f"invalid compressed flag {flag}")
        if self.inflate is None:
            raise InternalError("compressed message without grpc-encoding")
        return Inflated(self.inflate(payload))

    def read(self, size: int) -> bytes | None:
        """Remove exactly `size` bytes; fewer only at the end of the stream; None: not here yet."""
        if self.size < size and not self.eof:
            self._need = size
            return None
        self._need = min(size, self.size)
        if not self._need:
            self._need = PREFIX_SIZE
            return b""
        data = self._gather()
        taken, rest = data[: self._need], data[self._need :]
        if rest:
            self._chunks.appendleft(rest)
        self.size -= len(taken)
        self._need = PREFIX_SIZE
        return taken

    def clear(self) -> int:
        """Forget everything here; return how many bytes it was."""
        size, self.size, self._offset = self.size, 0, 0
        self._chunks.clear()
        self._error = None  # its traceback leads back here
        return size
