"""Counting what a peer does: token buckets, and log lines that a flood cannot multiply."""

from __future__ import annotations

import logging
import time

__all__ = ["Bucket", "QuietLog"]


class Bucket:
    """`capacity` tokens at once, regained evenly over `period` seconds."""

    __slots__ = ("_capacity", "_level", "_rate", "_stamp")

    def __init__(self, capacity: int, period: float) -> None:
        self._capacity = float(capacity)
        self._level = float(capacity)
        self._rate = capacity / period
        self._stamp = 0.0

    def take(self, now: float) -> bool:
        """Take one token; False when there is none."""
        level = self._level
        if level < 1.0:
            level = min(self._capacity, level + (now - self._stamp) * self._rate)
            self._stamp = now
            if level < 1.0:
                self._level = level
                return False
        elif level == self._capacity:
            self._stamp = now
        self._level = level - 1.0
        return True

    def give(self, tokens: float) -> None:
        """Put tokens back, up to the capacity."""
        self._level = min(self._capacity, self._level + tokens)


class QuietLog:
    """One line per event, kind and interval; what was held back is counted on the next line.

    Text of a peer is written in ASCII escapes and cut, so that no line can be forged.
    """

    def __init__(self, logger: logging.Logger, interval: float = 5.0) -> None:
        self._logger = logger
        self._interval = interval
        self._next: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def warning(
        self, event: str, detail: object, error: BaseException | None = None, *, kind: str = ""
    ) -> None:
        """Log `event: detail`, at most once per interval for an event of a kind, so that a flood
        of one kind hides no other; `error` adds its traceback."""
        now = time.monotonic()
        key = event + kind
        if now < self._next.get(key, 0.0):
            self._held[key] = self._held.get(key, 0) + 1
            return
        self._next[key] = now + self._interval
        held = self._held.pop(key, 0)
        text = ascii(str(detail))[1:-1][:300]
        more = f" (and {held} more)" if held else ""
        self._logger.warning("%s: %s%s", event, text, more, exc_info=error)
