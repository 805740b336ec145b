"""Lines to a file or to standard error, written by a thread: the loop never waits for a disk."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from streamkit.config import AccessLimits
from streamkit.errors import PreconditionError

__all__ = ["LineWriter"]

log = logging.getLogger(__name__)

_MOST = AccessLimits().log_lines
_PAUSE = 0.2
"""Seconds that a line may wait: waking the thread for each would cost more than the line."""
_LOOK = 3  # times so long between two looks at where the file is
_TURN = 64  # lines that are formed before the loop may have the interpreter

Line = TypeVar("Line")


class LineWriter(Generic[Line]):
    """Appends lines to `path`, "-" being standard error. PreconditionError if it cannot be opened.

    A file that is moved away (rotated) is made anew within a second. Lines beyond what may wait
    are counted and left out; `close` writes what is waiting. `write` may be called by any thread.
    `form` makes the text of what `write` was given, many at a time, in this one's own thread.
    """

    def __init__(self, path: str | os.PathLike[str], form: Callable[[Line], str] = str) -> None:
        self._path = None if path == "-" else Path(path)
        self._form = form
        self._lines: deque[Line] = deque()
        self._closed = threading.Event()
        self.dropped = 0
        """Lines that found no room."""
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="streamkit-lines", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Take in what becomes a line, without its end."""
        if len(self._lines) >= _MOST:
            self.dropped += 1
            return
        self._lines.append(line)

    def close(self) -> None:
        """Write what is waiting, unless it cannot be written for seconds."""
        self._closed.set()
        self._thread.join(5.0)

    def _open(self) -> BinaryIO:
        if self._path is None:
            return sys.stderr.buffer
        try:
            # Who did what is not for every user of the machine to read.
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as error:
            raise PreconditionError(f"cannot write {self._path}: {error.strerror}") from None
        return os.fdopen(handle, "ab", buffering=0)

    def _run(self) -> None:
        looks = 0
        while True:
            closed = self._closed.wait(_PAUSE)
            looks += 1
            if closed or self._lines or looks % _LOOK == 0:
                self._follow_rotation()
            parts = self._take()
            if parts:
                try:
                    parts.append("")
                    self._file.write("\n".join(parts).encode("utf-8", "backslashreplace"))
                    self._file.flush()
                except (OSError, ValueError):
                    self.dropped += len(parts) - 1
            if closed:
                if self._path is not None:
                    self._file.close()
                return

    def _take(self) -> list[str]:
        """The text of all that waits."""
        found: list[str] = []
        while self._lines:
            line = self._lines.popleft()
            try:
                found.append(self._form(line))
            except Exception as fault:  # of one line; the others are written
                self.dropped += 1
                log.error("a line cannot be written: %r", fault)
            if not len(found) % _TURN:
                time.sleep(0)
        return found

    def _follow_rotation(self) -> None:
        if self._path is None:
            return
        try:
            state, ours = os.stat(self._path), os.fstat(self._file.fileno())
            moved = (state.st_ino, state.st_dev) != (ours.st_ino, ours.st_dev)
        except OSError:
            moved = True
        if moved:
            try:
                former, self._file = self._file, self._open()
                former.close()
            except (PreconditionError, OSError):
                return  # the moved file takes the lines until there is a place for a new one
