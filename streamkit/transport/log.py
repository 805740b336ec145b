"""Log lines that a flood cannot multiply."""

from __future__ import annotations

import logging
import time

__all__ = ["LOG", "QuietLog"]


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


LOG = QuietLog(logging.getLogger("streamkit.transport"))
"""Shared by all connections: a thousand peers that do the same wrong thing are one line."""
