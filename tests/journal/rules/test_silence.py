"""Silence is what was seen of it; a clock that jumps is not believed where it does harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from streamkit.journal.rules.jobs import Job
from streamkit.journal.rules.silence import Attendance, BelievedClock, Silences

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def job(name: str = "j", heartbeat: float = 10.0, status: str = "running") -> Job:
    return Job(
        job_id=name,
        status=status,
        created_at=BEGAN,
        updated_at=BEGAN,
        reported_at=BEGAN,
        heartbeat=heartbeat,
    )


class Time:
    """Seconds that a test passes, and a wall clock that it can set."""

    def __init__(self) -> None:
        self.steady = 1000.0
        self.offset = timedelta(0)

    def wall(self) -> datetime:
        return BEGAN + timedelta(seconds=self.steady) + self.offset


def test_only_what_was_seen_counts() -> None:
    time = Time()
    attendance = Attendance(lambda: time.steady)
    for _ in range(5):
        time.steady += 1
        attendance.look()
    assert attendance.seen() == 5
    time.steady += 0.5
    assert attendance.seen() == 5.5
    time.steady += 3600  # stopped, suspended, or a loop that was blocked
    assert attendance.seen() == 7.5
    assert attendance.look() == 7.5
    time.steady += 1
    assert attendance.seen() == 8.5


def test_a_jump_forward_is_believed_once_nothing_can_be_lost_by_it() -> None:
    time = Time()
    clock = BelievedClock(time.wall, lambda: time.steady, 60.0)
    before = clock()
    time.steady += 10
    time.offset = timedelta(days=10)
    assert clock() - before == timedelta(seconds=10)
    time.steady += 50
    assert clock() - before == timedelta(seconds=60)
    time.steady += 11  # what was recorded before the jump is older than a minute by any clock
    assert clock() == time.wall()
    time.steady += 1
    assert clock() == time.wall()


def test_a_jump_back_keeps_longer_and_small_steps_are_followed() -> None:
    time = Time()
    clock = BelievedClock(time.wall, lambda: time.steady, 60.0)
    time.offset = timedelta(days=-2)
    assert clock() == time.wall()
    time.offset = timedelta(0)
    assert clock() == time.wall()
    for _ in range(100):
        time.steady += 10
        time.offset += timedelta(seconds=1)
        assert clock() == time.wall()


def test_a_jump_there_and_back_changes_nothing() -> None:
    time = Time()
    clock = BelievedClock(time.wall, lambda: time.steady, 60.0)
    for _ in range(10):
        time.offset = timedelta(days=10)
        time.steady += 30
        believed = clock()
        assert believed < time.wall() - timedelta(days=9)
        time.offset = timedelta(0)
        assert clock() == time.wall()


def test_a_job_comes_up_when_it_is_stalled_and_when_it_is_lost() -> None:
    silences = Silences()
    silences.heard(job(), 0.0)
    assert silences.overdue(19.9, 10) == []
    assert silences.overdue(20.0, 10) == [("j", 20.0)]
    assert silences.overdue(59.9, 10) == []
    assert silences.overdue(60.0, 10) == [("j", 60.0)]
    assert silences.overdue(61.0, 10) == [("j", 61.0)]  # whoever was told did not store it
    silences.forget("j")
    assert silences.overdue(1000.0, 10) == []


def test_a_heartbeat_may_change() -> None:
    silences = Silences()
    silences.heard(job(heartbeat=1000.0), 0.0)
    silences.heard(job(heartbeat=1.0), 10.0)
    assert silences.overdue(12.0, 10) == [("j", 2.0)]
    silences.heard(job(heartbeat=100.0), 12.5)
    assert silences.overdue(20.0, 10) == []
    assert silences.overdue(212.5, 10) == [("j", 200.0)]
    silences.heard(job(heartbeat=100.0, status="completed"), 213.0)
    assert len(silences) == 0
    assert silences.overdue(10_000.0, 10) == []


def test_a_look_takes_so_many_and_leaves_the_others_for_the_next() -> None:
    silences = Silences()
    for n in range(25):
        silences.heard(job(f"j{n}"), 0.0)
    found = [silences.overdue(20.0, 10) for _ in range(4)]
    assert [len(some) for some in found] == [10, 10, 5, 0]
    assert {name for some in found for name, _ in some} == {f"j{n}" for n in range(25)}


def test_what_has_ended_is_let_go_of_long_before_it_is_due() -> None:
    silences = Silences()
    for n in range(50_000):
        silences.heard(job(f"j{n}", heartbeat=1e7), 0.0)
        silences.forget(f"j{n}")
        silences.heard(job("k", heartbeat=1e7 - n), 0.0)
    assert len(silences._due) < 3000
    assert len(silences._awaited) < 3000


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 30)), max_size=60))
def test_as_if_each_job_were_looked_at(steps: list[tuple[int, float]]) -> None:
    silences = Silences()
    heard: dict[str, float] = {}
    stalled: set[str] = set()
    seen = 0.0
    for name, pause in steps:
        seen += pause
        silences.heard(job(f"j{name}"), seen)
        heard[f"j{name}"] = seen
        stalled.discard(f"j{name}")
        seen += 1.0
        found = {job_id for job_id, _ in silences.overdue(seen, 100)}
        now = {job_id for job_id, since in heard.items() if seen - since >= 20.0}
        assert now - stalled <= found <= now
        stalled |= now
