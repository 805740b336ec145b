"""How often a quiet stream asks for a sign of life: learned from what cuts it off."""

from __future__ import annotations

__all__ = ["Pulse"]

_QUICKEST = 0.5
"""Seconds between two heartbeats, at least: many streams may learn from one restart."""
_ALIKE = 0.25


class Pulse:
    """The interval of heartbeats that all streams of a client ask for. Pure.

    A proxy ends a stream that was silent for its idle limit, and does not say so. A stream that
    was reset while it was quiet asks for a heartbeat in a third of that time from then on. A lost
    connection is mostly something else: it counts when two in a row came after the same silence.
    """

    def __init__(self, longest: float) -> None:
        self.interval = longest
        """Seconds."""
        self._last = 0.0

    def cut(self, ending: str, quiet: float) -> None:
        """A stream ended so (see `endings`) after this many quiet seconds."""
        if ending in ("", "status") or quiet < 2 * _QUICKEST:
            return
        again = abs(quiet - self._last) <= _ALIKE * quiet
        self._last = quiet
        if ending != "lost" or again:
            self.interval = min(self.interval, max(_QUICKEST, quiet / 3))
