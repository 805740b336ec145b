"""When to try again and how long to wait: pure, with time and chance passed in.

Three rules. Delays grow from `Backoff.first` by `Backoff.factor` up to `Backoff.longest`, each
spread by the jitter. Progress (a record that arrived, a reply) starts the delays anew; a mere
connection does not, so a server that accepts and drops is not hammered. A budget bounds what
repeating may add to the load of a server that fails: one for all single calls of a client, which
only answers of the server are charged to, and one for each stream.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from streamkit.client.endings import Follows, follows
from streamkit.config import Backoff
from streamkit.terms import RECONNECT_HEADER

__all__ = [
    "MAX_ATTEMPTS",
    "MAX_DOUBTFUL",
    "PushBack",
    "Retry",
    "RetryBudget",
    "backoff",
    "is_retryable",
    "push_back",
]

_FIRST_SPREAD = 2.5

MAX_ATTEMPTS = 5
"""Of one single call, and of a query before its first batch."""

MAX_DOUBTFUL = 5
"""A limit that is met so often in a row without progress is no passing state."""


def is_retryable(error: BaseException) -> bool:
    """Whether the same call, repeated later, may succeed; the table is in `endings`.

    True for the statuses UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED, and for what broke off
    without a status of the server.
    """
    return follows(error) is not Follows.FINAL


def backoff(
    settings: Backoff | None = None, chance: Callable[[], float] = random.random
) -> Iterator[float]:
    """Yield the delays before the first, second, ... repetition, without end.

    `chance` returns a number in [0, 1).
    """
    settings = settings or Backoff()
    delay = settings.first
    # All clients of a server lose it in the same moment, so their first delays are spread wider
    # than the later ones, which are spread already.
    spread = min(1.0, settings.jitter * _FIRST_SPREAD)
    while True:
        yield delay * (1 + spread * (2 * chance() - 1))
        delay = min(delay * settings.factor, settings.longest)
        spread = settings.jitter


@dataclass(frozen=True, slots=True)
class PushBack:
    """What a server says about coming back: never, or after so many seconds (None: soon)."""

    never: bool = False
    delay: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether another attempt is asked for, whatever the status was."""
        return not self.never and self.delay is None


def push_back(trailers: Mapping[str, object]) -> PushBack | None:
    """Read a server's wish from the trailing metadata of a call that failed.

    `grpc-retry-pushback-ms` is gRPC's own: milliseconds, anything else means do not repeat.
    `streamkit-reconnect` comes from a server that drains: reconnecting is wanted.
    """
    wanted = trailers.get("grpc-retry-pushback-ms")
    if wanted is not None:
        text = str(wanted)
        return PushBack(delay=int(text) / 1000) if text.isdigit() else PushBack(never=True)
    if RECONNECT_HEADER in trailers:
        return PushBack()
    return None


class RetryBudget:
    """What repetitions may cost in all.

    A failure takes one token of ten, progress returns a tenth of one. While at most half is left,
    single calls are not repeated and progress does not shorten a stream's delays. May be shared;
    one event loop uses it.
    """

    def __init__(self, tokens: float = 10.0, refund: float = 0.1) -> None:
        self._full = tokens
        self._refund = refund
        self.tokens = tokens

    @property
    def allows(self) -> bool:
        return self.tokens > self._full / 2

    def failure(self) -> None:
        self.tokens = max(0.0, self.tokens - 1)

    def progress(self) -> None:
        self.tokens = min(self._full, self.tokens + self._refund)


class Retry:
    """The attempts of one call: told of failures and progress, it says when to go on."""

    def __init__(
        self,
        settings: Backoff | None = None,
        budget: RetryBudget | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings or Backoff()
        self._budget = budget or RetryBudget()
        self._chance = chance
        self._delays = backoff(self._settings, chance)
        self.failures = 0
        """In a row, without progress between them that the budget allows to count."""
        self._fruitless = 0

    def progress(self) -> None:
        """Something arrived. Starts the delays anew unless the budget is spent."""
        self._budget.progress()
        self._fruitless = 0
        if self.failures and self._budget.allows:
            self.failures = 0
            self._delays = backoff(self._settings, self._chance)

    def delay(
        self, error: BaseException, trailers: Mapping[str, object] | None = None
    ) -> float | None:
        """Seconds until the next attempt, or None: the error is final."""
        wish = push_back(trailers or {})
        verdict = follows(error)
        if wish is not None and wish.wanted and verdict is Follows.FINAL:
            verdict = Follows.DOUBTFUL
        if verdict is Follows.FINAL or (wish is not None and wish.never):
            return None
        self._budget.failure()
        self.failures += 1
        self._fruitless += 1
        pushed = wish is not None and not wish.wanted
        if verdict is Follows.DOUBTFUL and self._fruitless > MAX_DOUBTFUL and not pushed:
            return None
        if wish is not None:
            # A wanted return is spread over the wanted time, so that a drained server's clients
            # do not come back in one moment.
            if wish.delay is not None:
                return wish.delay * (1 + self._settings.jitter * self._chance())
            if self.failures == 1:
                return self._settings.first * self._chance()
        return next(self._delays)
