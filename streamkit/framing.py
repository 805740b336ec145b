"""How gRPC frames a message: a prefix of five bytes, and the message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct

__all__ = ["PREFIX", "PREFIX_SIZE", "Framed", "prefix"]

PREFIX = Struct(">BL")
"""The head of every message: compressed flag, length."""
PREFIX_SIZE = PREFIX.size
prefix: Callable[[int], bytes] = partial(PREFIX.pack, 0)
"""The head of a message of that many bytes that is not compressed."""


@dataclass(frozen=True, slots=True)
class Framed:
    """One or several whole gRPC messages, each with its five-byte prefix, ready for the wire.

    A streaming handler may yield it in place of a message; the same bytes can go to any number
    of callers.
    """

    data: bytes | Sequence[bytes | memoryview]
    """Their bytes, or the pieces that these are in: large ones are sent without being joined, and
    must not change any more."""
    count: int
    """How many messages it is."""
