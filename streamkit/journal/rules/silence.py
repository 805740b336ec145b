"""How long workers were silent, and what the clock is believed.

Silence is counted in seconds that the server itself saw go by: while it was stopped, suspended or
too busy to look, nobody could have been heard. The wall clock has no say in it. In what is too old
it has, but a jump of it that the steady clock did not make is believed only when it does no harm.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta

from streamkit.journal.rules.jobs import LOST_AFTER, STALLED_AFTER, Job

__all__ = ["Attendance", "BelievedClock", "Silences", "Steady"]

Steady = Callable[[], float]
"""Seconds that never jump, from any beginning: time.monotonic, unless a test injects another."""

_LONGEST_LOOK_AWAY = 2.5
"""Seconds between two looks; of a longer pause the rest was not seen."""
_JUMP = timedelta(seconds=2)
_AGAIN = 1.0
_UNTIDY = 1000


class Attendance:
    """The seconds that the server was there. `look` is to be called about once a second."""

    def __init__(self, steady: Steady) -> None:
        self._steady = steady
        self._looked = steady()
        self._seen = 0.0

    def seen(self) -> float:
        """The seconds that were seen so far."""
        return self._seen + min(_LONGEST_LOOK_AWAY, self._steady() - self._looked)

    def look(self) -> float:
        """Be there: the same, and what comes is seen from now on."""
        self._seen = self.seen()
        self._looked = self._steady()
        return self._seen


class BelievedClock:
    """The wall clock, as far as ages are concerned.

    A jump forward is believed once everything from before it is too old by any clock. After a jump
    back the clock is believed at once: what was recorded before it is then kept for longer.
    """

    def __init__(self, wall: Callable[[], datetime], steady: Steady, max_age: float) -> None:
        self._wall = wall
        self._steady = steady
        self.max_age = max_age
        """Seconds after which nothing is kept any more."""
        self._began = (wall(), steady())
        self._jumped: float | None = None

    def __call__(self) -> datetime:
        wall, steady = self._wall(), self._steady()
        expected = self._began[0] + timedelta(seconds=steady - self._began[1])
        if wall <= expected + _JUMP:
            self._jumped = None
            if wall > expected - _JUMP:
                self._began = (wall, steady)  # the small steps by which clocks are kept right
            return wall
        if self._jumped is None:
            self._jumped = steady
        if steady - self._jumped > self.max_age:
            self._began = (wall, steady)
            return wall
        return expected


class Silences:
    """When each worker that promised to report was last heard of, and who is overdue.

    What a look costs depends on how many are overdue, not on how many there are.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, float]] = {}
        self._due: list[tuple[float, str]] = []
        self._awaited: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._heard)

    def heard(self, job: Job, seen: float) -> None:
        """A worker reported; this is its job now."""
        if job.status != "running" or not job.heartbeat:
            self.forget(job.job_id)
            return
        self.expect(job.job_id, job.heartbeat, seen)

    def expect(self, job_id: str, heartbeat: float, seen: float) -> None:
        """A worker was heard, or its job found, and is to report again."""
        self._heard[job_id] = (seen, heartbeat)
        due = seen + STALLED_AFTER * heartbeat
        if job_id not in self._awaited or due < self._awaited[job_id]:
            self._await(job_id, due)

    def forget(self, job_id: str) -> None:
        """Nobody waits for this worker any more."""
        if self._heard.pop(job_id, None) is not None:
            self._tidy()

    def overdue(self, seen: float, most: int) -> list[tuple[str, float]]:
        """Some of the jobs whose workers missed something since the last look, and their silence.
        A job that is lost and not forgotten comes again."""
        found: list[tuple[str, float]] = []
        while self._due and self._due[0][0] <= seen and len(found) < most:
            due, job_id = heapq.heappop(self._due)
            if self._awaited.get(job_id) != due:
                continue  # it is awaited earlier, since its heartbeat became shorter
            del self._awaited[job_id]
            if job_id not in self._heard:
                continue
            heard, heartbeat = self._heard[job_id]
            silence = seen - heard
            if silence < STALLED_AFTER * heartbeat:
                self._await(job_id, heard + STALLED_AFTER * heartbeat)
                continue
            found.append((job_id, silence))
            lost = heard + LOST_AFTER * heartbeat
            self._await(job_id, lost if lost > seen else seen + _AGAIN)
        return found

    def _await(self, job_id: str, due: float) -> None:
        heapq.heappush(self._due, (due, job_id))
        self._awaited[job_id] = due
        self._tidy()

    def _tidy(self) -> None:
        """Let go of what is awaited no more, before it is more than what is."""
        if len(self._due) > 2 * len(self._heard) + _UNTIDY:
            self._awaited = {j: due for j, due in self._awaited.items() if j in self._heard}
            self._due = [(due, job_id) for job_id, due in self._awaited.items()]
            heapq.heapify(self._due)
