"""The files that a name has had: found by how rotation names them.

`app.log` becomes `app.log.1`, `app.log-20260131`, `app.log.old`, `app-2026-01-31.log` or
`app.1.log`. A link has targets that differ in their numbers. `app-error.log` is another log.
"""

from __future__ import annotations

import os
import re
import stat
import time
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

__all__ = ["candidates", "settled"]

_MARK = r"[._~-](?:[0-9][0-9TZ:_.+-]*|old|bak|prev|orig)|~"
"""What rotation adds. Compressed files are not read: their bytes are others."""
MOST_SCANS = 10
PAUSE = 0.01
"""Seconds between two of them."""


Found = list[tuple[str, os.stat_result]]


def candidates(path: Path) -> Found:
    """The files that have or have had the name, each once: oldest first, the name itself last."""
    return _scan(path)[0]


def settled(path: Path) -> Found:
    """The same, once nothing is moved meanwhile: a file that is renamed while its folder is read
    may be seen under neither name. For what is not looked for a second time."""
    found, moving = _scan(path)
    for _ in range(MOST_SCANS):
        before = _files(found)
        found, moved = _scan(path)
        if not moved and not moving and _files(found) == before:
            break
        moving = moved
        time.sleep(PAUSE)
    return found


def _files(found: Found) -> dict[tuple[int, int], str]:
    return {(status.st_dev, status.st_ino): name for name, status in found}


def _scan(path: Path) -> tuple[Found, bool]:
    """What is there, and whether a name that was listed was gone when it was looked at."""
    patterns = [(path.parent, _rotated(path.name))]
    if path.is_symlink():
        target = path.resolve()
        patterns.append((target.parent, _rotated(target.name)))
        patterns.append((target.parent, _numbered(target.name, path.name)))
    found: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    gone = False
    for folder, pattern in patterns:
        try:
            entries = os.scandir(folder)
        except OSError:
            continue
        with entries:
            for entry in entries:
                if not pattern.fullmatch(entry.name):
                    continue
                if (status := _status(entry.path)) is None:
                    gone = gone or not os.path.lexists(entry.path)
                else:
                    found.setdefault((status.st_dev, status.st_ino), (entry.path, status))
    own = _status(str(path))
    if own is not None:
        found.pop((own.st_dev, own.st_ino), None)
    older = sorted(found.values(), key=lambda item: item[1].st_mtime_ns)
    return (older if own is None else [*older, (str(path), own)]), gone


def _status(name: str) -> os.stat_result | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


@lru_cache(maxsize=64)
def _rotated(name: str) -> re.Pattern[str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    before = rf"{re.escape(stem)}(?:{_MARK}){re.escape(dot + suffix)}" if suffix else r"(?!)"
    return re.compile(rf"{re.escape(name)}(?:{_MARK})|{before}")


@lru_cache(maxsize=64)
def _numbered(target: str, link: str) -> re.Pattern[str]:
    """Names like the target's with other numbers; what it shares with the link stays."""
    pairs = zip(target, link, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    rest = re.split(r"\d+", target[shared:])
    return re.compile(re.escape(target[:shared]) + r"\d+".join(map(re.escape, rest)))
