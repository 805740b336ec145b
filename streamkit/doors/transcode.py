"""What readers are sent in place of gRPC's frames, made once for all of the same frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from streamkit.codec import decode
from streamkit.config import DoorLimits
from streamkit.framing import PREFIX, PREFIX_SIZE

__all__ = ["Shared", "bodies_in", "messages_in"]


def messages_in(kind: type[Any], frames: bytes) -> Iterator[Any]:
    """Decode whole messages with their prefixes, none of which is compressed."""
    for start, end in bodies_in(frames):
        yield decode(kind, frames[start:end])


def bodies_in(frames: bytes) -> Iterator[tuple[int, int]]:
    """Find where whole messages with their prefixes begin and end."""
    position = 0
    while position < len(frames):
        _, length = PREFIX.unpack_from(frames, position)
        start = position + PREFIX_SIZE
        position = start + length
        yield start, position


T = TypeVar("T")


class Shared(Generic[T]):
    """Keeps what readers of one kind are sent in place of the same frames.

    The frames of a record are made once, and each of its readers is handed the same bytes object:
    so is what a door makes of them.
    """

    def __init__(self, make: Callable[[bytes], T], limits: DoorLimits) -> None:
        self._make = make
        self._most = limits.shared_bytes
        self._size = 0
        self._kept: OrderedDict[bytes, T] = OrderedDict()

    def __call__(self, parts: Sequence[bytes | memoryview]) -> T:
        """Return what goes to this reader for these frames."""
        frames = parts[0] if len(parts) == 1 else b"".join(parts)
        if not isinstance(frames, bytes):
            frames = bytes(frames)
        found = self._kept.get(frames)
        if found is None:
            found = self._make(frames)
            self._kept[frames] = found
            self._size += len(frames)
            while self._size > self._most:
                self._size -= len(self._kept.popitem(last=False)[0])
        return found
