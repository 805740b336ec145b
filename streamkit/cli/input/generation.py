"""One of the files behind a name: read in batches of lines, known again by what was read of it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from hashlib import blake2b
from io import FileIO
from typing import NamedTuple

from streamkit.cli.input.lines import LineSplitter, encoding_of

__all__ = [
    "HISTORY",
    "START",
    "Batch",
    "CutError",
    "Generation",
    "Place",
    "fits",
    "is_beginning",
    "key_of",
    "opened",
    "place_at",
    "was_read",
]

CHUNK = 64 * 1024
MOST_LINES = 500
"""Of one batch."""
TAIL = 1024
"""Bytes before a place that are compared: files often begin alike."""
HISTORY = 512
"""Places on the way to where a file was read, by which a copy of a part of it is known."""


class Place(NamedTuple):
    """Up to where a file was read, with what it takes to know the file again."""

    offset: int
    length: int
    """Of the bytes before the place that the digest is of."""
    digest: str

    @classmethod
    def after(cls, offset: int, before: bytes) -> Place:
        """The place at `offset`, given bytes that end there."""
        tail = before[-TAIL:]
        return cls(offset, len(tail), _digest(tail))


START = Place(0, 0, "")


class Batch(NamedTuple):
    """Lines of one file, whole."""

    key: str
    first: int
    """Where the first of them begins."""
    place: Place
    """Where the last one ends."""
    lines: list[str]


class Generation:
    """One open file behind the name."""

    def __init__(self, key: str, name: str, file: FileIO, line: Place, now: float) -> None:
        self.key = key
        self.name = name
        self.file = file
        self.at = line
        """Up to where it was read."""
        self.line = line
        """Where its last whole line ended."""
        self.head = b""
        """What it began with when it was read from its start."""
        self.history = deque[Place](maxlen=HISTORY)
        self.grown = now
        head = os.pread(file.fileno(), 4, 0)
        known = encoding_of(head)[0] if line.offset else ""
        self.splitter = LineSplitter(place=line.offset, encoding=known)

    def read(self, now: float) -> list[Batch]:
        """The next lines; none if there are none yet. Raises CutError for another content."""
        while data := self._next():
            self.grown = now
            first = self.splitter.place
            base = self.at.offset - self.at.length
            if not self.at.offset:
                self.head = data[:TAIL]
            lines = self.splitter.feed(data[self.at.length :])
            self.at = Place.after(base + len(data), data)
            self.history.append(self.at)
            if lines:
                ends, batches = self.splitter.ends, []
                for index in range(0, len(lines), MOST_LINES):
                    some = lines[index : index + MOST_LINES]
                    end = ends[index + len(some) - 1]
                    place = Place.after(end, data[: end - base])
                    batches.append(Batch(self.key, first, place, some))
                    first = end
                    self.line = place
                return batches
        return []

    def _next(self) -> bytes:
        """The bytes before the place and new ones after it; empty if nothing is new.

        One read for both: what is before the place says that what comes after it belongs there.
        """
        at = self.at
        data = os.pread(self.file.fileno(), at.length + CHUNK, at.offset - at.length)
        if len(data) < at.length or _digest(data[: at.length]) != at.digest:
            raise CutError
        return data if len(data) > at.length else b""

    def has_read(self, copy: FileIO, size: int) -> bool:
        """Whether a copy of its beginning, of that size, has nothing that was not read."""
        head = self.head[:size]
        return self.at.offset >= size and os.pread(copy.fileno(), len(head), 0) == head

    def finish(self) -> Batch | None:
        """The last line if it has no end; no more of it is expected."""
        first = self.splitter.place
        lines = self.splitter.finish()
        self.line = self.at
        return Batch(self.key, first, self.at, lines) if lines else None


class CutError(Exception):
    """The file no longer has the bytes that were read."""


def key_of(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest() if data else ""


def opened(name: str, key: str) -> FileIO | None:
    """The file of that name if it still is the one that was seen."""
    try:
        file = open(name, "rb", buffering=0)  # noqa: SIM115  # closed by the caller
    except OSError:
        return None
    if key_of(os.fstat(file.fileno())) == key:
        return file
    file.close()
    return None


def place_at(file: FileIO, offset: int) -> Place:
    length = min(offset, TAIL)
    return Place.after(offset, os.pread(file.fileno(), length, offset - length))


def fits(file: FileIO, place: Place) -> bool:
    """Whether the bytes before the place are in the file."""
    data = os.pread(file.fileno(), place.length, place.offset - place.length)
    return len(data) == place.length and _digest(data) == place.digest


def is_beginning(file: FileIO, size: int, other: FileIO) -> bool:
    """Whether a file is the beginning of another one, by its own beginning and end."""
    length = min(size, TAIL)
    for offset in (0, size - length):
        mine = os.pread(file.fileno(), length, offset)
        if mine != os.pread(other.fileno(), length, offset):
            return False
    return True


def was_read(file: FileIO, size: int, history: Sequence[Place]) -> bool:
    """Whether a file holds what was read of one that is gone, as far as it goes."""
    before = [place for place in history if place.offset <= size]
    return bool(before) and fits(file, before[-1])
