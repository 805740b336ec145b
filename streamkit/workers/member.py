"""A worker's own side: it serves as a server does, and asks the owner for what is everybody's."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

from streamkit.config import JournalOptions
from streamkit.doors.page.sessions import Session
from streamkit.errors import InternalError, StreamkitError, UnimplementedError
from streamkit.intercom import Intercom
from streamkit.journal.base import now
from streamkit.journal.following.follower import FollowerJournal
from streamkit.process import dedicate_process
from streamkit.server import Server
from streamkit.workers.words import OTHERS, OWNER, QUESTION, READY, RELOAD, VARIABLE, Beginning

__all__ = ["Member"]

_GRACE = 1.0
"""Seconds for calls whose server has lost its store."""


class Member:
    """This process, as one of several that are one server. It is the server's `team`."""

    def __init__(self, beginning: Beginning) -> None:
        self.number = beginning.number
        self.calls_after = beginning.calls_after
        self.calls_step = beginning.calls_step
        self.options = beginning.options
        self._beginning = beginning
        self._server: Server | None = None
        self._line = Intercom(on_told=self._told, on_asked=self._asked, on_lost=self._owner_gone)
        self._orphaned: asyncio.Task[None] | None = None
        self.on_reload: Callable[[dict[str, Any]], None] = lambda options: None
        """Called with options that have changed."""
        self._changed: dict[str, Any] = {}
        """Of those, what came before the server had begun."""

    @classmethod
    def inherited(cls) -> Self | None:
        """Return what this process was started as, if it was by an owner."""
        given = os.environ.pop(VARIABLE, "")
        return cls(Beginning.read(given)) if given else None

    async def run(self, server: Server) -> bool:
        """Serve until the owner asks to end; False, and perhaps an InternalError that tells of it,
        when the owner has died. Raises what `Server.start` raises."""
        begun = self._beginning
        os.environ["STREAMKIT_WORKER"] = str(self.number)
        async with AsyncExitStack() as resources:
            await self._line.start(socket.socket(fileno=begun.control))
            resources.callback(self._line.close)
            settings: dict[str, Any] = {"listener": socket.socket(fileno=begun.listener)}
            resources.callback(settings["listener"].close)
            journal = None
            if begun.journal is not None:
                options = server.settings["journal_options"] or JournalOptions()
                sock = socket.socket(fileno=begun.journal)
                journal = await FollowerJournal.join(sock, options, now, time.monotonic)
                await resources.enter_async_context(journal)
                settings["journal"] = journal
            server.configure(**settings)
            server.team, server.logins = self, _SharedLogins(self)
            async with server:
                dedicate_process()
                self._server = server
                if self._changed:
                    self.on_reload(self._changed)
                if journal is not None and journal.faults and journal.on_faults is not None:
                    journal.on_faults()
                self._line.tell(READY, None)
                if self._line.closed:  # the owner died meanwhile
                    self._owner_gone()
                await server.serve()
            if self._orphaned is None:
                return True
        if self._has_last_word():
            raise InternalError("the process that owned the store is gone; its workers have ended")
        return False

    # ---- the team of a server ----

    async def others(self, name: str, value: Any) -> list[Any]:
        """As Colleagues."""
        answers: list[Any] = await self._line.ask(OTHERS, (name, value))
        return answers

    async def owner(self, name: str, value: Any) -> Any:
        """As Colleagues."""
        return await self._line.ask(OWNER, (name, value))

    # ---- what others want of it ----

    def _told(self, kind: int, value: Any) -> None:
        if kind != RELOAD:
            return
        if self._server is None:
            self._changed = value
        else:
            self.on_reload(value)

    def _asked(self, kind: int, value: Any, reply: Callable[[Any], None]) -> None:
        name, given = value
        answers: dict[str, Callable[[Any], Any]] = {"ping": lambda _: None}
        if self._server is not None:
            answers |= self._server.answers
        answer = answers.get(name)
        if kind != QUESTION or answer is None:
            reply(UnimplementedError(f"this worker cannot tell {name}"))
            return
        try:
            told = answer(given)
            reply([*told, *self._own_figures()] if name == "figures" else told)
        except StreamkitError as error:
            reply(error)

    def _own_figures(self) -> list[Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        labels = (("worker", str(self.number)),)
        name = "streamkit_worker_cpu_seconds"
        seconds = used.ru_utime + used.ru_stime
        text = "CPU time of each process that serves."
        return [(name, "counter", text, [(f"{name}_total", labels, seconds)])]

    def _owner_gone(self) -> None:
        if self._server is not None and not self._server.draining and self._orphaned is None:
            self._orphaned = asyncio.get_running_loop().create_task(self._server.stop(_GRACE))

    def _has_last_word(self) -> bool:
        os.set_blocking(self._beginning.last_word, False)
        with suppress(BlockingIOError):  # nothing was said
            return bool(os.read(self._beginning.last_word, 1))
        return False


class _SharedLogins:
    """Logins of the page are the owner's: a browser may meet any worker."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def redeem(self, code: str) -> str | None:
        cookie: str | None = await self._member.owner("redeem", code)
        return cookie

    async def open(self, token: str) -> str:
        cookie: str = await self._member.owner("open", token)
        return cookie

    async def find(self, cookie: str) -> Session | None:
        found = await self._member.owner("find", cookie)
        return None if found is None else Session(*found)

    async def close(self, cookie: str) -> None:
        await self._member.owner("close", cookie)
