"""Servers and workers as processes of their own, and what the kernel says about them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Serving", "Worker", "cpu_seconds", "die_with_parent", "memory"]

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")


class Worker:
    """A python module run as a process; its lines on stdout are JSON values."""

    def __init__(self, module: str, **settings: Any) -> None:
        self._module = module
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            json.dumps(self._settings),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def line(self) -> Any:
        """The next line; None at the end of the output."""
        assert self._process is not None
        assert self._process.stdout is not None
        text = await self._process.stdout.readline()
        return json.loads(text) if text else None

    def kill(self) -> None:
        """kill -9: nothing in the process gets to say a word."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)

    async def end(self) -> int:
        assert self._process is not None
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()
            await self.end()


class Serving(Worker):
    """A server over a store, on a port that stays the same when it is started again."""

    def __init__(self, store: Path | str, **settings: Any) -> None:
        super().__init__("tests.proof.serving", store=str(store), **settings)
        self.address = ""

    async def start(self) -> Self:
        await super().start()
        self.address = await self.line()
        assert self.address, "the server did not start"
        self._settings["port"] = int(self.address.rpartition(":")[2])
        return self


def die_with_parent() -> None:
    """Called in a worker: a test that was killed leaves no process behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
