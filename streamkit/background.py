"""Work that goes on beside the calls, for as long as its owner lives."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from streamkit.errors import InternalError, StreamkitError

__all__ = ["Companions", "Recurring", "all_ended", "ended", "place_of"]

_AGAIN = 1.0

LOG = logging.getLogger("streamkit")


def place_of(error: BaseException) -> str:
    """An error in one line, with the file and line that it comes from."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<")]
    return f"{own[-1].filename}:{own[-1].lineno}: {text}" if own else text


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended, however it does."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def all_ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """The same for tasks that use what is not ours: Python 3.11's `wait_for` may swallow a
    cancellation (cpython #86296), so one that goes on is cancelled again."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)


class Companions:
    """Tasks beside the calls, none of which ends unseen: the first failure is logged and kept, and
    `on_crash` is called."""

    def __init__(self, on_crash: Callable[[], None]) -> None:
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[object]] = set()
        self._crash: BaseException | None = None
        self._name = ""

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run it until it ends or `stop` is called."""
        task = asyncio.get_running_loop().create_task(work, name=getattr(work, "__name__", ""))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        LOG.error("%s, in the background, has failed: %s", task.get_name(), place_of(error))
        if self._crash is None:
            self._crash, self._name = error, task.get_name()
            self._on_crash()

    def fail(self, error: StreamkitError) -> None:
        """As if one had failed with this, which says all there is to say."""
        LOG.error("%s", error.message)
        if self._crash is None:
            self._crash = error
            self._on_crash()

    async def stop(self) -> None:
        """Cancel what runs, and wait until it has ended; the caller may be one of them."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise InternalError, once, if something has failed, or what `fail` was given."""
        error, self._crash = self._crash, None
        if error is not None and not self._name:
            raise error
        if error is not None:
            text = f"{self._name}, in the background, has failed: {place_of(error)}"
            raise InternalError(text) from error


class Recurring:
    """Does some work again and again, `interval` seconds after it was done.

    No failure ends it: the first of a kind is logged, the work is tried again, and `fault` says
    what is wrong until it succeeds, which is logged, too. `on_change` is called when that changes.
    `start` and `stop` may each be called once; `stop` waits until the work has ended.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        interval: float,
        logger: logging.Logger,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.fault = ""
        self._work = work
        self._interval = interval
        self._logger = logger
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    def hurry(self) -> None:
        """Do it as soon as can be, and not only when it is time."""
        self._hurried.set()

    async def stop(self) -> None:
        if self._task is not None:
            await all_ended([self._task])

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._hurried.wait()
            self._hurried.clear()
            fault = ""
            try:
                await self._work()
            except StreamkitError as error:  # says all there is to say in its one line
                fault = error.message
                if fault != self.fault:
                    self._logger.warning("%s: %s", self.name, fault)
            except Exception as error:  # a mistake of ours must not end it either
                fault = f"{type(error).__name__}: {error}"
                if fault != self.fault:
                    self._logger.exception("%s failed and is tried again", self.name)
            if fault != self.fault:
                if not fault:
                    self._logger.info("%s works again", self.name)
                self.fault = fault
                self._on_change()
