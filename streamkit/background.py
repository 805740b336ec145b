"""Work that goes on beside the calls, for as long as its owner lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamkit.errors import StreamkitError

__all__ = ["Recurring"]


class Recurring:
    """Does some work again and again, `interval` seconds after it was done.

    No failure ends it: the first of a kind is logged, the work is tried again, and `fault` says
    what is wrong until it succeeds. `on_change` is called when that changes. `start` and `stop` may
    each be called once; `stop` waits until the work has ended.
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

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
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
                self.fault = fault
                self._on_change()
