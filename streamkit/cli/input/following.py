"""A file that grows and is rotated, as a stream of bytes.

Rotation by renaming: the old file is read to its end, then the new one from its start. Rotation by
truncating or copying and truncating: noticed when the file is shorter than what was read or when
its first bytes are others; reading starts anew. Files have no push that works everywhere, so the
file is looked at a few times a second while it is quiet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

__all__ = ["Rotated", "follow"]

CHUNK = 256 * 1024
FINGERPRINT = 256


class Rotated:
    """Comes between the bytes of one file and those of its successor."""


def follow(
    path: Path,
    *,
    from_end: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    wait: Callable[[float], object] = time.sleep,
    interval: float = 0.1,
) -> Iterator[bytes | Rotated]:
    """Yield what is in the file and what is added to it, until `stopped()`.

    Blocks: run it in a thread. An empty `bytes` says that nothing came for one interval. A file
    that is away for a while is waited for, but it must be there at first: OSError.
    """
    file = path.open("rb", buffering=0)
    try:
        if from_end:
            file.seek(0, os.SEEK_END)
        head = _head(file)
        while True:
            # Looked at before reading: a file cut and filled again beyond our place would
            # otherwise be read from its middle.
            change = _change(path, file, head)
            if change != "truncated":
                if data := file.read(CHUNK):
                    if len(head) < FINGERPRINT:
                        head = _head(file)
                    yield data
                    continue
                if change == "same":
                    if stopped():
                        return
                    wait(interval)
                    yield b""
                    continue
                successor = _open(path)
                if successor is None:
                    continue
                # Its writer may have added something between our last read and the renaming.
                while data := file.read(CHUNK):
                    yield data
                file.close()
                file = successor
            else:
                file.seek(0)
            head = _head(file)
            yield Rotated()
    finally:
        file.close()


def _head(file: FileIO) -> bytes:
    return os.pread(file.fileno(), FINGERPRINT, 0)


def _change(path: Path, file: FileIO, head: bytes) -> str:
    """Whether the path still is the file that is read: "same", "renamed" or "truncated"."""
    mine = os.fstat(file.fileno())
    try:
        named = path.stat()
    except OSError:
        return "same"  # between two steps of a rotation, or removed: its successor is waited for
    if (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino):
        return "renamed"
    if mine.st_size < file.tell() or not _head(file).startswith(head):
        return "truncated"
    return "same"


def _open(path: Path) -> FileIO | None:
    try:
        return path.open("rb", buffering=0)
    except OSError:
        return None
