"""A producer's repeated request is answered, not stored again.

The rule: per stream and producer the last `REQUESTS` requests are remembered, at most for `AGE`
seconds. A repeat within that gets the first one's answer. A request that is older than all that
is remembered of a producer who sent more than that is refused: nobody can tell any more whether
it was stored. Requests may come in any order; producers count their own from 1.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count as count_up
from itertools import repeat

from streamkit.errors import InvalidArgumentError, PreconditionError
from streamkit.journal.base import ProducerId, Stream

__all__ = ["AGE", "REQUESTS", "Answer", "Window", "Windows", "check_producer"]

REQUESTS = 16_384
AGE = 86_400.0

Answer = tuple[int, ...]
"""Updates and logs: first sequence and count. Jobs: the sequence after each report."""

_FORGET_AT_ONCE = 1024
_WINDOW_COST = 1024
_ANSWER_COST = 160
_NUMBER_COST = 40


class Window:
    """The remembered requests of one producer in one stream. `size` is about its bytes."""

    __slots__ = ("answers", "floor", "size")

    def __init__(self, answers: dict[int, Answer] | None = None, floor: int = 0) -> None:
        self.answers = {} if answers is None else answers
        self.floor = floor
        self.size = _WINDOW_COST + sum(map(_cost, self.answers.values()))

    def find(self, sequence: int) -> Answer | None:
        """The first request's answer, None for a new request; PreconditionError if too old."""
        answer = self.answers.get(sequence)
        if answer is None and sequence <= self.floor:
            raise PreconditionError(
                f"request {sequence} of this producer is too old to tell whether it was stored",
                hint=f"requests up to {self.floor} are forgotten",
            )
        return answer

    def remember(self, sequence: int, answer: Answer, requests: int = 1) -> bool:
        """Keep an answer; True if that moved the floor. Of a run of `requests`, the first's: the
        others were stored behind it, as many records each."""
        if requests == 1:
            self.answers[sequence] = answer
        else:
            first, count = answer
            numbers = range(sequence, sequence + requests)
            firsts = count_up(first, count)
            self.answers.update(zip(numbers, zip(firsts, repeat(count)), strict=False))
        self.size += requests * _cost(answer)
        moved = False
        while len(self.answers) >= REQUESTS + _FORGET_AT_ONCE:
            moved = True
            for old in sorted(self.answers)[:_FORGET_AT_ONCE]:
                self.size -= _cost(self.answers.pop(old))
                self.floor = old
        return moved

    def forget(self, first: int, last: int) -> None:
        """What these requests were answered is remembered no more."""
        for sequence in range(first, last + 1):
            answer = self.answers.pop(sequence, None)
            if answer is not None:
                self.size -= _cost(answer)


class Windows:
    """The windows of the producers who wrote last, as many as fit into a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._windows: OrderedDict[tuple[Stream, str], Window] = OrderedDict()
        self.size = 0

    def get(self, stream: Stream, producer: str) -> Window | None:
        window = self._windows.get((stream, producer))
        if window is not None:
            self._windows.move_to_end((stream, producer))
        return window

    def put(self, stream: Stream, producer: str, window: Window) -> None:
        self._windows[(stream, producer)] = window
        self.size += window.size

    def remember(self, window: Window, sequence: int, answer: Answer, requests: int = 1) -> bool:
        """As `Window.remember`, in one of the windows."""
        before = window.size
        moved = window.remember(sequence, answer, requests)
        self.size += window.size - before
        return moved

    def forget(self, stream: Stream, producer: str, first: int, last: int) -> None:
        """As `Window.forget`, if the window is here; 0 stands for what was forgotten before, which
        leaves nothing that a window could go by."""
        window = self._windows.get((stream, producer))
        if window is None:
            return
        if not first:
            self.size -= self._windows.pop((stream, producer)).size
            return
        before = window.size
        window.forget(first, last)
        self.size += window.size - before

    def trim(self) -> None:
        """Let go of the windows used least lately that are too many. Not before what they
        remember is stored, where it is stored at all."""
        while self.size > self._most and self._windows:
            _, window = self._windows.popitem(last=False)
            self.size -= window.size

    def clear(self) -> None:
        self._windows.clear()
        self.size = 0


def _cost(answer: Answer) -> int:
    return _ANSWER_COST + _NUMBER_COST * len(answer)


def check_producer(producer: ProducerId) -> None:
    """Raise InvalidArgumentError if this cannot name a request."""
    if not producer.id:
        raise InvalidArgumentError("producer.id must not be empty")
    if not 0 < producer.sequence < 1 << 63:
        raise InvalidArgumentError(
            f"producer.sequence must be counted from 1, not {producer.sequence}"
        )
