"""One worker process, as its owner sees it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from streamkit.intercom import Intercom
from streamkit.journal.following.feed import Feed, Follower
from streamkit.workers.words import QUESTION, READY, RELOAD, VARIABLE, Beginning

__all__ = ["Life"]

Asked = Callable[["Life", int, Any, Callable[[Any], None]], None]


class Life:
    """A worker from its start to its end."""

    def __init__(self, number: int, generation: int, asked: Asked) -> None:
        self.number = number
        self.name = f"{number}.{generation}"
        """No later process has it."""
        self.ready = asyncio.Event()
        self.follower: Follower | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._line = Intercom(
            on_told=self._told, on_asked=lambda kind, value, reply: asked(self, kind, value, reply)
        )

    @classmethod
    async def begin(
        cls,
        number: int,
        generation: int,
        *,
        asked: Asked,
        command: Sequence[str],
        options: dict[str, Any],
        step: int,
        listener: socket.socket,
        feed: Feed | None,
        last_word: int,
    ) -> Self:
        """Start the process. The listener is this one's to close afterwards."""
        life = cls(number, generation, asked)
        control, theirs = socket.socketpair()
        given = [theirs, listener]
        journal = None
        if feed is not None:
            journal, follower = socket.socketpair()
            given.append(follower)
        begun = Beginning(
            number=number,
            # Numbers of calls go up by the count of workers; those of before are not given again.
            calls_after=number - step + generation * step * 1_000_000,
            calls_step=step,
            control=theirs.fileno(),
            listener=listener.fileno(),
            journal=None if feed is None else given[-1].fileno(),
            last_word=last_word,
            options=options,
        )
        await life._line.start(control)
        if feed is not None and journal is not None:
            life.follower = await feed.join(journal)
        inherited = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET",)}
        try:
            life._process = await asyncio.create_subprocess_exec(
                *command,
                pass_fds=[last_word, *(sock.fileno() for sock in given)],
                env=inherited | {VARIABLE: begun.written()},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the owner, which passes it on
            )
        finally:
            for sock in given:
                if sock is not listener:
                    sock.close()
        return life

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def started(self) -> int | None:
        """Wait until it serves; the exit code if it ended instead."""
        assert self._process is not None
        waiting = [asyncio.ensure_future(self.ready.wait()), asyncio.ensure_future(self.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return None if self.ready.is_set() else self._process.returncode

    async def wait(self) -> int:
        """Wait for the end; the exit code, or minus the signal."""
        assert self._process is not None
        code = await self._process.wait()
        self._line.close()
        return code

    def ask(self, name: str, value: Any) -> asyncio.Future[Any]:
        """Ask it something. ConnectError once it is gone."""
        return self._line.ask(QUESTION, (name, value))

    def reload(self, options: Mapping[str, Any]) -> None:
        """Let it have these options instead of those that it was started with."""
        if not self.ended:
            self._line.tell(RELOAD, dict(options))

    def terminate(self) -> None:
        """Ask it to end; a second time, to end at once."""
        if self._process is not None and not self.ended:
            with suppress(ProcessLookupError):  # it has ended just now
                self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and not self.ended:
            with suppress(ProcessLookupError):  # as above
                self._process.kill()

    def _told(self, kind: int, value: Any) -> None:
        if kind == READY:
            self.ready.set()
