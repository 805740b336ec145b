"""How much disk the sorts of SQLite take: it has no limit for that, and its files have no names."""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["spilled"]

_OPEN_FILES = "/proc/{}/fd"
_PREFIX = "/etilqs_"  # how SQLite begins the name of a temporary file, gone once it is open


def spilled(process: int | str = "self") -> int:
    """Bytes of all the temporary files that SQLite has open in a process; 0 without /proc."""
    size = 0
    folder = _OPEN_FILES.format(process)
    with suppress(OSError):  # ended, or there is no /proc
        for number in os.listdir(folder):
            with suppress(OSError):  # closed meanwhile
                path = f"{folder}/{number}"
                if _PREFIX in os.readlink(path):
                    size += os.stat(path).st_size
    return size
