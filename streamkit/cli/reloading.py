"""`serve --reload`: a supervisor that keeps the port, and a server in a process of its own.

After a change the new process imports the app while the old one still serves; what cannot be
imported never takes its place. Then the old one ends as a server does, its streams told to come
back, and the new one gets the socket, in which connections have waited meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from streamkit.cli import exits
from streamkit.cli.exits import UsageError
from streamkit.cli.later import asyncio, socket
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.server import Server

__all__ = ["Child", "supervise"]

_LOOK_EVERY = 0.25
"""Seconds between two looks at the files."""
_VARIABLE = "_STREAMKIT_RELOAD"
_SKIPPED = ("__pycache__", "node_modules")


class Child:
    """What a server under supervision knows: how to ask for its socket."""

    def __init__(self, pair: socket.socket, *, first: bool) -> None:
        self.first = first
        """Whether nothing was served before."""
        self._pair = pair

    @classmethod
    def inherited(cls) -> Self | None:
        """Return what this process was started with, if it was by a supervisor."""
        given = os.environ.pop(_VARIABLE, "")
        if not given:
            return None
        number, _, first = given.partition(",")
        return cls(socket.socket(fileno=int(number)), first=bool(first))

    async def listener(self, server: Server) -> socket.socket:
        """Say that everything is ready, and wait for the socket; the process then ends with the
        supervisor."""
        host, port = server.wanted
        if host is None:
            raise UsageError("--reload keeps a port, and no Unix socket")
        self._pair.sendall(f"{host} {port}".encode())
        await _readable(self._pair)
        _, files, *_ = socket.recv_fds(self._pair, 16, 1)
        if not files:
            raise asyncio.CancelledError  # nobody is there to serve for
        asyncio.get_running_loop().add_reader(self._pair, self._orphaned)
        return socket.socket(fileno=files[0])

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pair)
        os.kill(os.getpid(), signal.SIGTERM)


class _Life:
    """One process of the server, seen from the supervisor."""

    def __init__(self, process: asyncio.subprocess.Process, pair: socket.socket) -> None:
        self.process = process
        self._pair = pair

    @classmethod
    async def begin(cls, *, first: bool) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streamkit", *sys.argv[1:]),
                pass_fds=[number],
                # Compiled files are known by the second in which the source changed.
                env=os.environ
                | {_VARIABLE: f"{number},{'1' if first else ''}", "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on
            )
        return cls(process, ours)

    async def ready(self) -> tuple[str, int] | None:
        """Where it wants to listen; None when it ended instead."""
        await _readable(self._pair)
        host, _, port = self._pair.recv(512).decode().rpartition(" ")
        return (host, int(port)) if port else None

    def serve(self, listener: socket.socket) -> None:
        socket.send_fds(self._pair, [b"serve"], [listener.fileno()])

    def ask_to_end(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()

    async def end(self) -> int:
        self.ask_to_end()
        code = await self.process.wait()
        self._pair.close()
        return code


async def supervise(session: Session, folder: Path) -> int:
    """Serve until a signal comes, and anew after each change of the Python files in `folder`."""
    if not hasattr(socket, "send_fds"):
        raise UsageError("--reload does not work on this system")
    supervisor = _Supervisor(session, folder)
    from streamkit.process import first, signals

    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            supervisor.insist()
        asked.set()

    with signals(on_signal):
        try:
            await first(supervisor.run(), asked.wait())
        finally:
            code = await supervisor.end()
    session.note("stopped")
    return code


class _Supervisor:
    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._folder = folder
        self._lives: list[_Life] = []
        self._listener: socket.socket | None = None
        self._place: tuple[str, int] | None = None

    async def run(self) -> None:
        seen = await asyncio.to_thread(_times, self._folder)
        while True:
            await self._replace()
            changed = ""
            while not changed:
                await asyncio.sleep(_LOOK_EVERY)
                now = await asyncio.to_thread(_times, self._folder)
                changed = min((p for p in {*now, *seen} if now.get(p) != seen.get(p)), default="")
                seen = now
            self._session.note(f"{changed.removeprefix(f'{self._folder}{os.sep}')} has changed")

    async def _replace(self) -> None:
        """Let a new process take the place of the one that serves, if it gets so far."""
        self._lives = [life for life in self._lives if life.process.returncode is None]
        new = await _Life.begin(first=self._listener is None)
        self._lives.append(new)
        place = await new.ready()
        if place is None:
            await new.end()
            rest = "the server before it goes on" if len(self._lives) > 1 else "nothing is served"
            self._session.note(f"{rest}; waiting for the next change")
            return
        for old in self._lives[:-1]:
            await old.end()
        self._lives = [new]
        if self._listener is None or place != self._place:
            from streamkit.listening import bound

            if self._listener is not None:
                self._listener.close()
            self._listener, self._place = bound(*place), place
        new.serve(self._listener)

    def insist(self) -> None:
        """A second signal: the server is to end at once."""
        for life in self._lives:
            life.ask_to_end()

    async def end(self) -> int:
        codes = [await life.end() for life in self._lives]
        if self._listener is not None:
            self._listener.close()
        return max(codes, default=exits.OK)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)


def _times(folder: Path) -> dict[str, tuple[int, int]]:
    """When each Python file below a folder changed, with its size."""
    found = {}
    for path in _files(str(folder)):
        try:
            state = os.stat(path)
        except FileNotFoundError:
            continue  # an editor that replaces the file: there again at the next look
        found[path] = (state.st_mtime_ns, state.st_size)
    return found


def _files(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [n for n in folders if not n.startswith(".") and n not in _SKIPPED]
        yield from (os.path.join(here, n) for n in files if n.endswith((".py", ".binpb")))
