"""A producer's repeated request is answered, not stored again.

The rule: per stream and producer the last `REQUESTS` requests are remembered, at most for `AGE`
seconds. A repeat within that gets the first one's answer. A request that is older than all that
is remembered of a producer who sent more than that is refused: nobody can tell any more whether
it was stored. Requests may come in any order; producers count their own from 1.
"""

from __future__ import annotations

from collections import OrderedDict

from streamkit.errors import InvalidArgumentError, PreconditionError
from streamkit.journal.base import ProducerId, Stream

__all__ = ["AGE", "REQUESTS", "Answer", "Window", "Windows", "check_producer"]

REQUESTS = 16_384
AGE = 86_400.0

Answer = tuple[int, ...]
"""Updates and logs: first sequence and count. Jobs: the sequence after each report."""

_FORGET_AT_ONCE = 1024


class Window:
    """The remembered requests of one producer in one stream."""

    __slots__ = ("answers", "floor")

    def __init__(self, answers: dict[int, Answer] | None = None, floor: int = 0) -> None:
        self.answers = {} if answers is None else answers
        self.floor = floor

    def find(self, sequence: int) -> Answer | None:
        """The first request's answer, None for a new request; PreconditionError if too old."""
        answer = self.answers.get(sequence)
        if answer is None and sequence <= self.floor:
            raise PreconditionError(
                f"request {sequence} of this producer is too old to tell whether it was stored",
                hint=f"requests up to {self.floor} are forgotten",
            )
        return answer

    def remember(self, sequence: int, answer: Answer) -> bool:
        """Keep an answer; True if that moved the floor."""
        self.answers[sequence] = answer
        if len(self.answers) < REQUESTS + _FORGET_AT_ONCE:
            return False
        for old in sorted(self.answers)[:_FORGET_AT_ONCE]:
            del self.answers[old]
            self.floor = old
        return True


class Windows:
    """The windows of the producers who wrote last, a bounded number of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._windows: OrderedDict[tuple[Stream, str], Window] = OrderedDict()

    def get(self, stream: Stream, producer: str) -> Window | None:
        window = self._windows.get((stream, producer))
        if window is not None:
            self._windows.move_to_end((stream, producer))
        return window

    def put(self, stream: Stream, producer: str, window: Window) -> None:
        self._windows[(stream, producer)] = window
        if len(self._windows) > self._most:
            self._windows.popitem(last=False)

    def clear(self) -> None:
        self._windows.clear()


def check_producer(producer: ProducerId) -> None:
    """Raise InvalidArgumentError if this cannot name a request."""
    if not producer.id:
        raise InvalidArgumentError("producer.id must not be empty")
    if not 0 < producer.sequence < 1 << 63:
        raise InvalidArgumentError(
            f"producer.sequence must be counted from 1, not {producer.sequence}"
        )
