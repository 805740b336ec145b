"""Counting what a peer does, against what no honest one does."""

from __future__ import annotations

from collections.abc import Callable

from streamkit.config import TransportLimits

__all__ = ["Bucket", "Budgets"]

_BARREN_PER_STREAM = 4.0  # headers in several frames, priorities, resets of what has ended
_UPDATES_PER_STREAM = 8.0
_UPDATES_PER_FRAME = 2.0
_UPDATES_PER_BYTE = 0.25  # a message of five bytes may be taken, and given back, by itself
_UPDATES_PER_DRIBBLE = 1 / 32  # of a frame that takes all there is of a window
_UPDATES_EARNED = 2**20  # at most: a second of this side's time


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


class Budgets:
    """What one peer may do that costs this side work and brings nobody anything.

    Each budget is for what no honest peer does at any rate, however busy it is: what honest work
    brings with it is not counted, or is earned by that work.

    - `resets`: streams that a peer opens and resets before anything can come of them, and streams
      that it makes this side reset. Not counted: a stream that was answered, or lived a while; any
      stream that this side opened. Earned: one by every stream that ends in another way.
    - `updates`: WINDOW_UPDATE. Earned by streams, by frames sent and by their bytes, since a peer
      may give each small message back by itself; hardly by a frame that takes all there is of a
      window, so that a peer that asks for data byte by byte does not pay by it.
    - `pings`: earned by every write that has data. A peer that measures the line asks once then.
    - `settings`: a peer that measures the line changes its windows a few times a second.
    - `barren`: frames that say nothing. Not counted: answers to our own pings and settings, the
      end of a stream, and what was on its way for a stream that is over here (`Http2.excuse`).
      Earned by streams.
    """

    __slots__ = ("_clock", "_earned", "barren", "pings", "resets", "settings", "updates")

    def __init__(self, limits: TransportLimits, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.resets = Bucket(limits.resets, 30.0)
        self.updates = Bucket(limits.window_updates, 10.0)
        self.pings = Bucket(limits.pings, 10.0)
        self.settings = Bucket(limits.settings, 5.0)
        self.barren = Bucket(limits.empty_frames, 10.0)
        self._earned = 0.0  # updates: what was sent long ago may be given back all at once

    def spend(self, bucket: Bucket) -> bool:
        """Take one of a budget; False when it is used up."""
        return bucket.take(self._clock())

    def update(self) -> bool:
        """A WINDOW_UPDATE came; False when there may be no more of them."""
        if self._earned < 1.0:
            return self.updates.take(self._clock())
        self._earned = min(self._earned, _UPDATES_EARNED) - 1.0
        return True

    def began(self) -> None:
        """A stream began, opened by either side."""
        self.barren.give(_BARREN_PER_STREAM)
        self._earned += _UPDATES_PER_STREAM

    def framed(self, size: int, *, all_there_was: bool) -> None:
        """A DATA frame was written; `all_there_was`: it used up a window."""
        if all_there_was:
            self._earned += size * _UPDATES_PER_DRIBBLE
        else:
            self._earned += _UPDATES_PER_FRAME + size * _UPDATES_PER_BYTE

    def wrote(self) -> None:
        """What was framed left with one write."""
        self.pings.give(1.0)
