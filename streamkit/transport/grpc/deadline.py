"""Times that callers give, and the one that a served call hands on to the calls that it makes."""

from __future__ import annotations

import asyncio
import math
import time
from contextvars import ContextVar
from datetime import timedelta

from streamkit.config import RequestLimits
from streamkit.errors import InvalidArgumentError, internal

__all__ = ["Served", "checked_seconds", "duration", "served"]


def checked_seconds(value: float | None, name: str = "timeout") -> float | None:
    """Return a time in seconds, None for one that never ends. InvalidArgumentError when it is no
    number: a clock that is asked for it would be wrong from then on."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if math.isnan(seconds):
        raise internal(InvalidArgumentError(f"{name} is not a number of seconds: {value!r}"))
    return None if seconds == math.inf else seconds


def duration(value: float, name: str) -> timedelta:
    """Return a time as it travels in a message; one that never ends is the longest that a request
    may name. InvalidArgumentError when it is no number."""
    most = RequestLimits().seconds
    seconds = checked_seconds(value, name)
    return timedelta(seconds=most if seconds is None else max(-most, min(seconds, most)))


class Served:
    """The deadline of a call that is being served.

    It holds for the calls that the handler makes in its own task. What it awaits in other tasks is
    cancelled together with it; what it starts and leaves behind is bound to nothing.
    """

    __slots__ = ("_task", "_when")

    def __init__(self, when: float | None) -> None:
        """`when` is on the clock of `time.monotonic`. Holds for the current task from here on."""
        self._when = when
        self._task = asyncio.current_task()
        _SERVED.set(self)

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._task is None

    def end(self) -> None:
        """The call is over and binds nobody any more."""
        self._task = None

    @property
    def time_left(self) -> float | None:
        """Seconds, None for no end."""
        return None if self._when is None else max(0.0, self._when - time.monotonic())


_SERVED: ContextVar[Served] = ContextVar("streamkit_served")


def served() -> Served | None:
    """Return the deadline that holds for a call made here and now, if there is one."""
    found = _SERVED.get(None)
    if found is None or found._when is None or found._task is not asyncio.current_task():
        return None
    return found if found._task is not None else None
