"""This process's nursery: started when it is first needed, once for all the databases here.

Any thread may use it; everything but `end` blocks, for some milliseconds.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from streamkit.database.running.parcels import END, FORK, LOAD, ORDER

__all__ = ["NURSERY", "Nursery", "can_fork"]

_START_SECONDS = 60.0
_END_SECONDS = 2.0
_PACKAGES = str(Path(__file__).resolve().parents[3])
_RUN = (
    "import sys; sys.path.append({!r}); from streamkit.database.running.nursery import main; main()"
)


def can_fork() -> bool:
    """Whether this system has what a nursery needs."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


class Nursery:
    """The process that forks the others. Should it be lost, the next order starts it again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = 0
        self._loaded: list[str] = []

    @property
    def number(self) -> int | None:
        """Its process number, while there is one."""
        process = self._process
        return process.pid if process is not None else None

    def alive(self) -> bool:
        """Whether it has not ended."""
        process = self._process
        return process is not None and process.poll() is None

    def has(self, modules: Iterable[str]) -> bool:
        """Whether it has been told to import all of these."""
        return set(modules) <= set(self._loaded)

    def load(self, modules: Iterable[str]) -> None:
        """Have it import these, so that no child has to. Raises OSError."""
        with self._lock:
            new = [module for module in modules if module not in self._loaded]
            self._loaded += new
            if not self._running():
                self._start()
            elif new:
                self._load(new)

    def fork(self) -> tuple[int, socket.socket]:
        """A new child's process number and the socket to it. Raises OSError."""
        with self._lock:
            if not self._running():
                self._start()
            try:
                return self._fork()
            except OSError:
                self._close()
                self._start()
                return self._fork()

    def end(self, number: int) -> None:
        """Kill a child of that number, if it is still there."""
        control = self._control
        if control is not None and self._owner == os.getpid():
            with suppress(OSError):  # a nursery that is gone has no children
                control.send(ORDER.pack(END, number))

    def close(self) -> None:
        """End it and its children, and wait for that."""
        with self._lock:
            self._close()

    def _running(self) -> bool:
        if self._owner != os.getpid():
            # Inherited by a fork of this process, which must not answer its parent's orders.
            self._control = self._process = None
        return self._process is not None and self._process.poll() is None

    def _fork(self) -> tuple[int, socket.socket]:
        assert self._control is not None
        self._control.sendall(ORDER.pack(FORK, 0))
        data, descriptors, _, _ = socket.recv_fds(self._control, ORDER.size, 1)
        if not descriptors:
            raise OSError("the process that makes others for queries has ended")
        return ORDER.unpack(data)[1], socket.socket(fileno=descriptors[0])

    def _load(self, modules: list[str]) -> None:
        assert self._control is not None
        names = "\n".join(modules).encode()
        self._control.sendall(ORDER.pack(LOAD, len(names)) + names)

    def _start(self) -> None:
        self._close()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _RUN.format(_PACKAGES), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # One thread of numpy's is enough for what is never computed there.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "4"},
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(_START_SECONDS)
        self._control = ours
        self._owner = os.getpid()
        self._load(self._loaded)

    def _close(self) -> None:
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        if process is not None and self._owner == os.getpid():
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


NURSERY = Nursery()
atexit.register(NURSERY.close)
