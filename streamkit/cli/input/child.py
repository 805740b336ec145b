"""A command run as if streamkit were not there, with its output read on the way.

Standard input, working directory and environment pass through. Its output appears locally byte by
byte as it comes, and again as lines for whoever reports it. It stays in our process group, so
what the terminal sends to the group reaches it without our help; only other signals are passed on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import IO

from streamkit.cli.input.lines import LineSplitter

__all__ = ["Child", "OnLines", "exit_status"]

OnLines = Callable[[str, list[str], datetime], Awaitable[None]]
"""Given the name of the stream, "stdout" or "stderr", its next lines and when they came."""

QUIET_AFTER_EXIT = 1.0
"""Seconds that a background process may hold the output open before it is left alone."""


def exit_status(returncode: int) -> int:
    """What a shell would report: the exit code, or 128 + the signal that ended the process."""
    return returncode if returncode >= 0 else 128 - returncode


class Child:
    """One command, started at once. `wait` must be awaited; OSError if it cannot be started."""

    def __init__(
        self, command: Sequence[str], environ: dict[str, str], on_lines: OnLines, *, quiet: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lines = on_lines
        self._activity = asyncio.Event()
        self.process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, bufsize=0
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self._open = 2
        self._ended = asyncio.Event()
        for name, pipe, local in (
            ("stdout", self.process.stdout, None if quiet else 1),
            ("stderr", self.process.stderr, None if quiet else 2),
        ):
            # Threads: what is shown locally must never wait for the event loop. Daemons: a
            # background process of the command's may hold a pipe open for ever.
            threading.Thread(target=self._read, args=(name, pipe, local), daemon=True).start()

    async def wait(self) -> int:
        """Wait for the end of the command and of its output; return the exit status.

        A background process that keeps the output open is waited for only while it writes.
        """
        returncode = await asyncio.to_thread(self.process.wait)
        while not self._ended.is_set():
            self._activity.clear()
            ended = asyncio.ensure_future(self._ended.wait())
            active = asyncio.ensure_future(self._activity.wait())
            done, pending = await asyncio.wait(
                (ended, active), timeout=QUIET_AFTER_EXIT, return_when=asyncio.FIRST_COMPLETED
            )
            for future in pending:
                future.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            if not done:
                break
        return exit_status(returncode)

    def pass_on(self, number: int) -> None:
        """Send a signal on to the command unless the terminal has already done so."""
        if number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP) and _in_foreground():
            return
        self.send(number)

    def send(self, number: int) -> None:
        """Send a signal to the command; nothing happens if it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def _read(self, name: str, pipe: IO[bytes], local: int | None) -> None:
        splitter = LineSplitter()
        try:
            while data := os.read(pipe.fileno(), 65536):
                if local is not None:
                    _write_all(local, data)
                if lines := splitter.feed(data):
                    self._hand_over(name, lines)
            if lines := splitter.finish():
                self._hand_over(name, lines)
        except BrokenPipeError:
            # Whoever read our output is gone: closing the pipe tells the command the usual way.
            pass
        except RuntimeError:
            return  # the loop is closed: we were left behind with a background process
        finally:
            pipe.close()
        self._loop.call_soon_threadsafe(self._stream_ended)

    def _hand_over(self, name: str, lines: list[str]) -> None:
        # Waiting for the loop bounds what is under way; taking the lines never waits for a server.
        now = datetime.now(UTC)
        asyncio.run_coroutine_threadsafe(self._take(name, lines, now), self._loop).result()

    async def _take(self, name: str, lines: list[str], now: datetime) -> None:
        self._activity.set()
        await self._on_lines(name, lines, now)

    def _stream_ended(self) -> None:
        self._open -= 1
        if not self._open:
            self._ended.set()


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


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
