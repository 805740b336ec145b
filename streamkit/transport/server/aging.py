"""How long a server connection may live: idle ones and old ones are told to go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from streamkit.config import TransportLimits
from streamkit.transport.http2.protocol import WireProtocol

__all__ = ["Aging"]

_SPREAD = 0.1  # of the age, so that connections made together do not all end together


class Aging:
    """The timers of one connection; `expire` ends calls that outlive the grace of its age."""

    def __init__(
        self, protocol: WireProtocol, limits: TransportLimits, expire: Callable[[], None]
    ) -> None:
        self._protocol = protocol
        self._limits = limits
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._age: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        if limits.max_connection_age:
            factor = random.uniform(1 - _SPREAD, 1 + _SPREAD)
            self._age = self._loop.call_later(limits.max_connection_age * factor, self._old)
        if limits.max_connection_idle:
            self._watch_idle(0)

    def _old(self) -> None:
        self._protocol.leave()
        self._age = self._loop.call_later(self._limits.age_grace, self._expire)

    def _watch_idle(self, started: int) -> None:
        """Look again after the idle time: no call then, and none begun since, is idle."""
        wait = self._limits.max_connection_idle
        self._idle = self._loop.call_later(wait, self._check_idle, started)

    def _check_idle(self, started: int) -> None:
        connection = self._protocol.connection
        if connection.streams_started == started and not self._protocol.processor.streams:
            self._protocol.leave()
        else:
            self._watch_idle(connection.streams_started)

    def stop(self) -> None:
        """The connection is over."""
        for timer in (self._age, self._idle):
            if timer is not None:
                timer.cancel()
