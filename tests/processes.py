"""A real server in a process of its own, for tests."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from types import TracebackType
from typing import Any, Self

__all__ = ["ServerProcess"]

_PROGRAM = """
import asyncio, json, sys
from streamkit.errors import StreamkitError
from streamkit.server import Server

async def main(settings):
    server = Server(**settings)
    await server.start()
    print(server.address, flush=True)
    await server.serve()

try:
    asyncio.run(main(json.loads(sys.argv[1])))
except StreamkitError as error:
    print(error, error.hint, sep=" | ", file=sys.stderr)
    raise SystemExit(3) from None
"""


class ServerProcess:
    """`async with ServerProcess(journal=...) as server:` gives one that is listening.

    The settings are those of `Server`, as JSON can hold them. Leaving kills the process if it is
    still there.
    """

    def __init__(self, *, executable: str = sys.executable, **settings: Any) -> None:
        self._settings = {"port": 0, **settings}
        self._executable = executable
        self._process: asyncio.subprocess.Process | None = None
        self.address = ""

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Run the process; returns once it listens or has failed to."""
        self._process = await asyncio.create_subprocess_exec(
            self._executable,
            "-c",
            _PROGRAM,
            json.dumps(self._settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.address = (await self._process.stdout.readline()).decode().strip()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def outcome(self) -> tuple[int, str]:
        """Wait for the end; its exit code and what it wrote on stderr."""
        _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()

    async def __aenter__(self) -> Self:
        await self.start()
        if not self.address:
            raise AssertionError((await self.outcome())[1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()
