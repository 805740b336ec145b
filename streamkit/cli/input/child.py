"""A command run as if streamkit were not there, with its output read on the way.

Standard input, working directory and environment pass through. Its output appears locally byte by
byte as it comes, and again as lines for whoever reports it; nothing that goes wrong there reaches
the command. It stays in our process group, so what the terminal sends to the group reaches it
without our help; only other signals are passed on.
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from streamkit.cli.input.lines import LineSplitter

__all__ = ["Child", "OnLines", "exit_status"]

OnLines = Callable[[str, list[str], datetime], Awaitable[None]]
"""Given the name of the stream ("stdout", "stderr", or "" for both in one), its next lines and when
they came."""

QUIET_AFTER_EXIT = 1.0
"""Seconds that a background process may hold the output open before we leave it to itself."""
GLANCE = 0.2
"""Seconds between two looks whether the output is to be left."""


def exit_status(returncode: int) -> int:
    """What a shell would report: the exit code, or 128 + the signal that ended the process."""
    return returncode if returncode >= 0 else 128 - returncode


class _Stream:
    """One stream of the command's output."""

    def __init__(self, name: str, source: int, local: int | None) -> None:
        self.name = name
        self.source = source
        self.local = local
        self.ended = False
        self.thread: threading.Thread | None = None


class Child:
    """One command. `start` once; then `wait` must be awaited.

    Where standard output and standard error are one file here, they are one for the command too:
    that is the only way to keep their order. `terminal` gives it a terminal to write to.
    """

    def __init__(
        self,
        on_lines: OnLines,
        *,
        quiet: bool,
        terminal: bool = False,
        note: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lines = on_lines
        self._quiet = quiet
        self._terminal = terminal
        self._note = note
        self._activity = asyncio.Event()
        self._left = threading.Event()
        self._streams: list[_Stream] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def start(self, command: Sequence[str], environ: dict[str, str]) -> None:
        """Start the command; OSError if it cannot be started."""
        local = (None, None) if self._quiet else (1, 2)
        if self._terminal:
            streams, out, err = self._make_terminal(local[0])
        elif not self._quiet and _same_file(1, 2):
            source, out = os.pipe()
            err = out
            streams = [_Stream("", source, 1)]
        else:
            source, out = os.pipe()
            source_err, err = os.pipe()
            streams = [_Stream("stdout", source, local[0]), _Stream("stderr", source_err, local[1])]
        try:
            self._process = subprocess.Popen(list(command), stdout=out, stderr=err, env=environ)
        except BaseException:
            for stream in streams:
                os.close(stream.source)
            raise
        finally:
            for number in {out, err}:
                os.close(number)
        self._streams = streams
        for stream in streams:
            # Threads: what is shown locally must never wait for the event loop. Daemons: whoever
            # reads what we show may not read on.
            stream.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
            stream.thread.start()
        for number in self._early:
            self.send(number)

    async def wait(self) -> int:
        """Wait for the end of the command and of its output; return the exit status.

        A background process that keeps the output open is waited for only while it writes. Then
        its output is shown by a process that stays with it, and no longer read by us.
        """
        assert self._process is not None
        returncode = await asyncio.to_thread(self._process.wait)
        while not all(stream.ended for stream in self._streams):
            self._activity.clear()
            try:
                async with asyncio.timeout(QUIET_AFTER_EXIT):
                    await self._activity.wait()
            except TimeoutError:
                await self._leave()
                break
        return exit_status(returncode)

    def pass_on(self, number: int) -> None:
        """Send a signal on to the command unless the terminal has already done so."""
        if self._process is None:
            self._early.append(number)  # before there was a command that could have got it
        elif number not in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP) or not _in_foreground():
            self.send(number)

    def send(self, number: int) -> None:
        """Send a signal to the command; nothing happens if it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def resized(self) -> None:
        """Our own terminal has another size: tell the command's."""
        if self._terminal and self._streams:
            _copy_size(self._streams[0].source)

    def _make_terminal(self, local: int | None) -> tuple[list[_Stream], int, int]:
        import pty
        import termios

        source, inside = pty.openpty()
        attributes = termios.tcgetattr(inside)
        attributes[1] &= ~termios.OPOST  # what is written is what is shown and reported
        termios.tcsetattr(inside, termios.TCSANOW, attributes)
        _copy_size(source)
        return [_Stream("", source, local)], inside, inside

    # ---- in the threads that read ----

    def _read(self, stream: _Stream) -> None:
        splitter = LineSplitter()
        try:
            while not self._left.is_set():
                if not _readable(stream.source):
                    continue
                data = _read_some(stream.source)
                if not data:
                    stream.ended = True
                    break
                self._show(stream, data)
                self._hand_over(stream.name, splitter.feed(data))
            self._hand_over(stream.name, splitter.finish())
        except BrokenPipeError:
            # Whoever read our output is gone: closing the pipe tells the command the usual way.
            stream.ended = True
        finally:
            if stream.ended:
                os.close(stream.source)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._activity.set)

    def _show(self, stream: _Stream, data: bytes) -> None:
        if stream.local is None:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(stream.local, view) :]
        except BlockingIOError:
            # Somebody has made our output non-blocking, which is theirs as well.
            select.select([], [stream.local], [])
            self._show(stream, bytes(view))
        except BrokenPipeError:
            raise
        except OSError as error:
            stream.local = None
            self._note(f"the output cannot be shown any more ({error.strerror})")

    def _hand_over(self, name: str, lines: list[str]) -> None:
        # Waiting for the loop bounds what is under way; taking the lines never waits for a server.
        if not lines:
            return
        now = datetime.now(UTC)
        with suppress(RuntimeError):  # the loop is closed: nobody reports any more
            asyncio.run_coroutine_threadsafe(self._take(name, lines, now), self._loop).result()

    async def _take(self, name: str, lines: list[str], now: datetime) -> None:
        self._activity.set()
        try:
            await self._on_lines(name, lines, now)
        except Exception as error:
            # The command must not notice, and the person must.
            self._note(f"a line could not be reported: {type(error).__name__}: {error}")

    # ---- what outlives the command ----

    async def _leave(self) -> None:
        """Hand the output that is still open to a process that goes on showing it."""
        self._left.set()
        for stream in self._streams:
            if stream.thread is not None:
                await asyncio.to_thread(stream.thread.join)
        for stream in self._streams:
            if not stream.ended:
                _copy_on(stream)
        self._note(
            "a process in the background goes on; what it writes is shown and no longer reported"
        )


def _copy_on(stream: _Stream) -> None:
    nowhere = subprocess.DEVNULL
    local = nowhere if stream.local is None else stream.local
    with suppress(OSError):  # then the process meets a closed pipe, as without us
        copier = subprocess.Popen(_copier(), stdin=stream.source, stdout=local, stderr=nowhere)
        # Not waited for, as nobody would wait for the process that it stands in for.
        copier.returncode = 0
    os.close(stream.source)


def _copier() -> list[str]:
    if cat := shutil.which("cat"):
        return [cat]
    code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer.raw, sys.stdout.buffer.raw)"
    return [sys.executable, "-S", "-E", "-c", code]


def _readable(source: int) -> bool:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(GLANCE * 1000))


def _read_some(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # the other side of a terminal is closed
        return b""


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _copy_size(terminal: int) -> None:
    import fcntl
    import termios

    for number in (1, 2, 0):
        try:
            size = fcntl.ioctl(number, termios.TIOCGWINSZ, b"\0" * 8)
        except OSError:
            continue
        break
    else:
        size = struct.pack("HHHH", 24, 80, 0, 0)
    with suppress(OSError):  # a size that cannot be set is no reason not to run
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


def _in_foreground() -> bool:
    """Whether the terminal sends its signals to our process group, so to the command too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
