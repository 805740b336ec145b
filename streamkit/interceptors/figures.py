"""What the calls of a server come to, as whole numbers: a few are changed when calls have ended,
and nothing while they run. Those that run are asked when somebody wants to know."""

from __future__ import annotations

import threading
from collections import deque

from streamkit.errors import Status
from streamkit.histogram import Histogram
from streamkit.interceptors.access_log import reason_of
from streamkit.interceptors.calls import Calls, Facts

__all__ = ["REASONS", "SECONDS", "SIZES", "Ended", "Figures"]

_AT_ONCE = 64
"""Calls that have ended and are counted together, with what that takes at hand."""
SECONDS = (
    0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005,
    0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16,
    0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
)  # fmt: skip
"""The bounds that gRPC has agreed on (gRFC A66) for the time of a call, ..."""
SIZES = (
    0.0, 1024.0, 2048.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0,
    67108864.0, 268435456.0, 1073741824.0, 4294967296.0,
)  # fmt: skip
"""... and for the bytes of its messages."""
REASONS = frozenset(
    [
        "done",
        "client",
        "drain",
        "slow",
        "revoked",
        "expired",
        "kicked",
        "deadline",
        "unauthenticated",
        "denied",
        "limit",
        "error",
    ]
)
"""Why calls end. Whatever else a handler may have set counts as "other"."""


class Ended:
    """The calls of one method that have ended with one status."""

    __slots__ = ("count", "messages", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.count = 0
        self.messages = 0
        """That were sent."""
        self.seconds = Histogram(SECONDS)
        self.sent = Histogram(SIZES)
        self.received = Histogram(SIZES)


class Figures:
    """Counts the calls of a server. A method is one that the server has, never what was asked for,
    so that nobody outside can make their number grow."""

    def __init__(self, calls: Calls) -> None:
        self.ended: dict[tuple[str, Status], Ended] = {}
        """By method and status."""
        self._ended: dict[tuple[str, int], Ended] = {}
        """The same by the number of the status, which is found sooner than a member of an enum."""
        self.reasons: dict[tuple[str, str], int] = {}
        """Streams that have ended, by method and reason."""
        self.resumed: dict[str, int] = {"gap": 0, "refused": 0, "taken": 0}
        """Streams that were asked for from a position on, and what came of it."""
        self.refused: dict[str, int] = {"denied": 0, "unauthenticated": 0}
        self._waiting: deque[Facts] = deque()
        self._turn = threading.Lock()
        calls.on_end.append(self._take)

    def _take(self, facts: Facts) -> None:
        self._waiting.append(facts)
        if len(self._waiting) >= _AT_ONCE:
            self.count()

    def count(self) -> None:
        """Add the calls that have ended; before the figures are read. In any thread."""
        waiting = self._waiting
        with self._turn:
            for _ in range(len(waiting)):
                self._add(waiting.popleft())

    def _add(self, facts: Facts) -> None:
        _, numbers, (_, _, _, method), (_, resumed_from, streams), _, _, reason, outcome = facts
        if outcome is None:
            return
        key = (method, outcome.status.value)
        ended = self._ended.get(key)
        if ended is None:
            ended = Ended()
            self._ended[key] = self.ended[method, outcome.status] = ended
        _, seconds, _, messages_sent, bytes_received, bytes_sent = numbers
        ended.count += 1
        ended.messages += messages_sent
        ended.seconds.add(seconds)
        ended.sent.add(bytes_sent)
        ended.received.add(bytes_received)
        reason = reason or reason_of(outcome)
        if reason not in REASONS:
            reason = "other"
        if reason in self.refused:
            self.refused[reason] += 1
        if streams:
            why = (method, reason)
            self.reasons[why] = self.reasons.get(why, 0) + 1
        if resumed_from:
            result = {Status.OUT_OF_RANGE: "gap", Status.FAILED_PRECONDITION: "refused"}
            self.resumed[result.get(outcome.status, "taken")] += 1
