"""The command as a process, alone or on a terminal of its own, and the server that it talks to."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pyte
from pytest import MonkeyPatch

COMMAND = [sys.executable, "-m", "streamkit"]
PATIENCE = 30.0
_HOME = tempfile.TemporaryDirectory(prefix="streamkit-tests-")


def environment(server: str = "", **more: str) -> dict[str, str]:
    """An environment that says nothing about colour, CI or servers but what is given."""
    unset = ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "STREAMKIT_SERVER", "COLUMNS")
    clean = {key: value for key, value in os.environ.items() if key not in unset}
    own = {key: f"{_HOME.name}/{key}" for key in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
    return clean | {"TERM": "xterm-256color", "STREAMKIT_SERVER": server} | own | more


def streamkit(
    *arguments: str,
    server: str = "",
    stdin: str | bytes | None = None,
    timeout: float = PATIENCE,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end. Nothing that it prints may be a traceback."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        timeout=timeout,
        env=environment(server, **(env or {})),
        check=False,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def invoke(
    *arguments: str,
    server: str = "",
    stdin: str | bytes = b"",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `streamkit`, but in this process: a tenth of the time, and the same code."""
    from streamkit.cli.app import run

    data = stdin.encode() if isinstance(stdin, str) else stdin
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with tempfile.TemporaryFile() as file, MonkeyPatch.context() as patch:
        file.write(data)
        file.seek(0)
        patch.setattr(os, "environ", environment(server, **(env or {})))
        typed = io.TextIOWrapper(file, encoding="utf-8")
        patch.setattr(sys, "stdin", typed)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = run(arguments)
        out.flush()
        err.flush()
        typed.detach()
    shown, said = (stream.buffer.getvalue().decode() for stream in (out, err))
    assert "Traceback" not in said, said
    return subprocess.CompletedProcess(arguments, code, shown, said)


class ServerProcess:
    """`streamkit serve` as a process; `address` is known once it listens."""

    def __init__(self, store: Path | str, *options: str, port: int = 0) -> None:
        self._run("--store", str(store), "--port", str(port), *options)

    @classmethod
    def of(cls, app: str, *options: str) -> Self:
        """The same for MODULE:NAME, with nothing said about its store or port."""
        process = cls.__new__(cls)
        process._run(app, *options)
        return process

    def _run(self, *options: str) -> None:
        self.arguments = ["serve", *options]
        self.process = subprocess.Popen(
            [*COMMAND, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.greeting: list[str] = []
        self.address = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.greeting.append(line.rstrip())
            if " serves on " in line:
                self.address = line.split()[-1]
            if line.startswith("next, in another terminal"):
                break
        assert self.address, self.greeting
        self._drain = threading.Thread(target=self._read_rest, daemon=True)
        self._drain.start()

    def _read_rest(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.greeting.append(line.rstrip())  # seen while it grows

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self._gone()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self._gone()

    def _gone(self) -> int:
        code = self.process.wait(PATIENCE)
        self._drain.join(PATIENCE)
        assert self.process.stdout is not None and self.process.stderr is not None
        assert self.process.stdout.read() == "", "the server writes nothing on standard output"
        self.process.stdout.close()
        self.process.stderr.close()
        return code


class Terminal:
    """A command on a real pty, seen through a terminal emulator. A context manager."""

    def __init__(
        self,
        *arguments: str,
        server: str = "",
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        command: list[str] | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=5000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._changed = threading.Condition()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*(command or COMMAND), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(server, **(env or {})),
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(slave)
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError as error:
                assert error.errno in (errno.EIO, errno.EBADF)
                data = b""
            with self._changed:
                if data:
                    self.raw += data
                    self._stream.feed(data)
                else:
                    self._ended = True
                self._changed.notify_all()
            if not data:
                return

    @property
    def lines(self) -> list[str]:
        """The visible lines, without the blanks at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """What scrolled away and what is visible."""
        width = self.screen.columns
        past = [
            "".join(line[column].data for column in range(width)).rstrip()
            for line in self.screen.history.top
        ]
        return "\n".join([*past, *self.lines])

    def wait_for(self, *texts: str, timeout: float = PATIENCE) -> None:
        """Wait until every text was seen on the terminal at one time."""
        self.wait_until(lambda: all(text in self.text for text in texts), timeout, texts)

    def wait_until(
        self, condition: Callable[[], bool], timeout: float = PATIENCE, what: object = ""
    ) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                done = self._ended and not condition()
                assert left > 0 and not done, f"not seen: {what}\n{self.text}"
                self._changed.wait(left)

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.type(b"\x03")

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end and for everything that was written before it."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._master)


def wait_for(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait for what only other processes know, so that it has to be looked at again and again."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
