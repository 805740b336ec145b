"""How much of the server one identity uses now, over all of its calls."""

from __future__ import annotations

from collections.abc import Callable

from streamkit.config import AccessLimits
from streamkit.rights import Quota

__all__ = ["Usage", "Usages"]

_LIMITS = AccessLimits()


class Usage:
    """What one identity uses. `clock` is in seconds and never goes back."""

    __slots__ = ("_clock", "_free_at", "queries", "streams")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._free_at = 0.0
        self.streams = 0
        self.queries = 0

    def wait(self, quota: Quota) -> float:
        """Seconds until the identity may publish again; one second's worth may come at once."""
        rate = quota.publish_per_second
        return 0.0 if rate is None else max(0.0, self._free_at - self._clock())

    def publish(self, records: int, quota: Quota) -> float:
        """Count records and return the seconds until the next ones are due."""
        rate = quota.publish_per_second
        if rate is None:
            return 0.0
        now = self._clock()
        # What was not used within the last second is gone.
        self._free_at = max(self._free_at, now - 1) + records / rate
        return max(0.0, self._free_at - now)

    @property
    def idle(self) -> bool:
        """Whether forgetting it changes nothing."""
        return not (self.streams or self.queries) and self._free_at <= self._clock() - 1


class Usages:
    """The usage of every identity, by name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_name: dict[str, Usage] = {}

    def of(self, name: str) -> Usage:
        """The usage of an identity, kept as long as there is anything to remember."""
        usage = self._by_name.get(name)
        if usage is None:
            if len(self._by_name) >= _LIMITS.identities:
                self._by_name = {n: u for n, u in self._by_name.items() if not u.idle}
            usage = self._by_name[name] = Usage(self._clock)
        return usage
