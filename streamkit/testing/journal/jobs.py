"""What every journal does with jobs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamkit.config import JournalOptions, Retention
from streamkit.errors import AlreadyExistsError, InvalidArgumentError, LimitError, NotFoundError
from streamkit.generated.streamservice import JobProgress, JobReport, Producer
from streamkit.journal import Journal, Start, Stream
from streamkit.testing.journal.support import (
    BEGAN,
    Clock,
    Opener,
    following,
    jobs,
    messages,
    pass_time,
    stored,
)


async def report(journal: Journal, job_id: str = "j", **fields: Any) -> JobProgress:
    made = JobReport(job_id=job_id, **fields)
    (state,) = await journal.report_jobs([made])
    return state


class Jobs:
    """States, changes, watchers."""

    async def test_a_report_makes_and_changes_a_job(self, journal: Journal, clock: Clock) -> None:
        assert await journal.job("j") is None
        state = await report(journal, current_step="load", total=8, service="build")
        assert (state.status, state.percentage, state.sequence) == ("running", 0, 1)
        clock.advance(2)
        state = await report(journal, completed=3)
        assert (state.percentage, state.completed, state.total) == (37, 3, 8)
        assert (state.current_step, state.service) == ("load", "build")
        assert state.created_at == BEGAN
        assert state.updated_at == BEGAN + timedelta(seconds=2)
        assert await journal.job("j") == state
        state = await report(journal, status="completed", exit_code=0)
        assert (state.status, state.percentage, state.exit_code) == ("completed", 100, 0)

    async def test_nothing_runs_backwards(self, journal: Journal) -> None:
        await report(journal, percentage=50, completed=5, total=10)
        state = await report(journal, percentage=20, completed=2, status="pending")
        assert (state.status, state.percentage, state.completed) == ("running", 50, 5)
        assert state.sequence == 1

    async def test_a_terminal_status_stays(self, journal: Journal) -> None:
        ended = await report(journal, status="failed", error="it broke", exit_code=3)
        for status in ("running", "completed", "cancelled", "lost", "pending"):
            assert await report(journal, status=status, percentage=99, error="other") == ended
        assert await journal.cancel_job("j") == ended
        assert journal.bounds(Stream.JOBS).newest == 1

    async def test_what_changes_nothing_is_no_event(self, journal: Journal) -> None:
        first = await report(journal, percentage=5)
        assert await report(journal, percentage=5) == first
        assert await report(journal) == first
        assert journal.bounds(Stream.JOBS).newest == 1

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"status": "done"}, "status"),
            ({"percentage": 101}, "percentage"),
            ({"percentage": -1}, "percentage"),
            ({"completed": -1}, "completed"),
            ({"total": -1}, "total"),
            ({"heartbeat": timedelta(seconds=-1)}, "heartbeat"),
            ({"heartbeat": timedelta.max}, "heartbeat"),
            ({"job_id": ""}, "job_id"),
        ],
    )
    async def test_impossible_reports_are_refused(
        self, journal: Journal, fields: dict[str, object], named: str
    ) -> None:
        with pytest.raises(InvalidArgumentError, match=named):
            await journal.report_jobs(
                [JobReport(job_id="ok"), JobReport(**{"job_id": "j", **fields})]  # type: ignore[arg-type]  # wrong on purpose
            )
        assert await journal.job("ok") is None
        assert journal.bounds(Stream.JOBS).newest == 0

    async def test_create_refuses_a_known_job_and_all_that_came_with_it(
        self, journal: Journal
    ) -> None:
        await journal.report_jobs([JobReport(job_id="a")], create=True)
        for batch in (["b", "a"], ["b", "b"]):
            with pytest.raises(AlreadyExistsError):
                await journal.report_jobs([JobReport(job_id=name) for name in batch], create=True)
            assert await journal.job("b") is None
        assert journal.bounds(Stream.JOBS).newest == 1

    async def test_a_repeated_report_is_answered_as_the_first(self, journal: Journal) -> None:
        def batch(sequence: int) -> list[JobReport]:
            producer = Producer(id="p", sequence=sequence)
            return [
                JobReport(job_id="a", percentage=10 * sequence, producer=producer),
                JobReport(job_id="a", percentage=10 * sequence + 5, producer=producer),
                JobReport(job_id="b", percentage=sequence, producer=producer),
            ]

        first = await journal.report_jobs(batch(1))
        assert [state.sequence for state in first] == [1, 2, 3]
        assert [state.percentage for state in first] == [10, 15, 1]
        await journal.report_jobs(batch(2))
        assert await journal.report_jobs(batch(1)) == first
        created = await journal.report_jobs(
            [JobReport(job_id="c", producer=Producer(id="p", sequence=3))], create=True
        )
        assert created == await journal.report_jobs(
            [JobReport(job_id="c", producer=Producer(id="p", sequence=3))], create=True
        )
        assert journal.bounds(Stream.JOBS).newest == 7

    async def test_cancelling(self, journal: Journal) -> None:
        with pytest.raises(NotFoundError):
            await journal.cancel_job("none")
        await report(journal, "waits", status="pending")
        state = await journal.cancel_job("waits", "no need")
        assert (state.status, state.error) == ("cancelled", "no need")
        await report(journal, "runs")
        state = await journal.cancel_job("runs", "too slow")
        assert (state.status, state.cancel_requested) == ("running", True)
        assert (await journal.cancel_job("runs", "again")).sequence == state.sequence
        assert (await report(journal, "runs", percentage=3)).cancel_requested
        state = await report(journal, "runs", status="cancelled")
        assert (state.status, state.cancel_requested, state.error) == (
            "cancelled",
            False,
            "too slow",
        )

    async def test_a_silent_worker_is_stalled_then_lost(
        self, journal: Journal, clock: Clock
    ) -> None:
        await report(journal, heartbeat=timedelta(seconds=10))
        await report(journal, "quiet")
        async with following(journal, jobs("j")) as watch:
            await pass_time(journal, clock, 19)
            assert not (await journal.job("j")).stalled  # type: ignore[union-attr]  # there
            await pass_time(journal, clock, 1)
            await report(journal)
            await pass_time(journal, clock, 59)
            await journal.prune()
            await pass_time(journal, clock, 1)
            states = messages(JobProgress, await watch.until(4))
        assert [(s.status, s.stalled) for s in states] == [
            ("running", True),
            ("running", False),
            ("running", True),
            ("lost", False),
        ]
        assert "60 s" in states[-1].error
        assert (await journal.job("quiet")).status == "running"  # type: ignore[union-attr]  # there
        assert (await report(journal, status="completed")).status == "lost"

    async def test_a_heartbeat_without_news_keeps_a_job_alive(
        self, journal: Journal, clock: Clock
    ) -> None:
        await report(journal, heartbeat=timedelta(seconds=10))
        for _ in range(10):
            await pass_time(journal, clock, 15)
            await report(journal)
        assert journal.bounds(Stream.JOBS).newest == 1

    async def test_a_stalled_job_is_cancelled_at_once(self, journal: Journal, clock: Clock) -> None:
        await report(journal, heartbeat=timedelta(seconds=1))
        await pass_time(journal, clock, 3)
        assert (await journal.cancel_job("j")).status == "cancelled"

    async def test_a_watcher_starts_with_the_state_and_gets_every_change(
        self, journal: Journal
    ) -> None:
        await report(journal, percentage=10)
        await report(journal, "other", percentage=1)
        await report(journal, percentage=20)
        async with following(journal, jobs("j"), Start(last=1)) as watch:
            await watch.until(1)
            await report(journal, percentage=30)
            await report(journal, "other", percentage=2)
            await report(journal, status="completed")
            found = messages(JobProgress, await watch.until(3))
        assert [s.percentage for s in found] == [20, 30, 100]
        assert [s.sequence for s in found] == [3, 4, 6]

    async def test_a_watcher_gets_the_state_even_if_its_event_is_gone(
        self, opener: Opener, clock: Clock
    ) -> None:
        options = JournalOptions(retention=Retention(max_age=60.0), ring_records=2)
        async with await opener(options=options) as journal:
            await report(journal, percentage=10)
            clock.advance(100)
            for n in range(5):
                await report(journal, "other", percentage=n + 1)
            await journal.prune()
            assert journal.bounds(Stream.JOBS).oldest > 1
            async with following(journal, jobs("j"), Start(last=1)) as watch:
                await watch.until(1)
                await report(journal, percentage=30)
                states = messages(JobProgress, await watch.until(2))
                found = [state.percentage for state in states]
            assert found == [10, 30]
            assert await stored(journal, jobs("none"), Start(last=1)) == []

    async def test_the_list(self, opener: Opener, clock: Clock) -> None:
        options = JournalOptions(retention=Retention(max_age=3600.0))
        async with await opener(options=options) as journal:
            for n in range(6):
                await report(journal, f"j{n}", status="failed" if n % 2 else "running")
                clock.advance(10)
            await report(journal, "j0", percentage=7)

            async def listed(**filters: Any) -> list[str]:
                found = await journal.jobs(**filters)
                return [state.job_id for state in found.jobs]

            assert await listed() == ["j0", "j5", "j4", "j3", "j2", "j1"]
            assert await listed(limit=2) == ["j0", "j5"]
            assert await listed(statuses=["failed"]) == ["j5", "j3", "j1"]
            assert await listed(statuses=["failed", "lost"], limit=1) == ["j5"]
            assert await listed(since=BEGAN + timedelta(seconds=40)) == ["j0", "j5", "j4"]
            assert await listed(ids=["*3", "j0", "x"]) == ["j0", "j3"]
            clock.advance(3650)
            await journal.prune()
            assert await listed() == ["j0", "j4", "j2"]  # running jobs stay, however old

    async def test_many_workers_at_once(self, journal: Journal) -> None:
        async def work(name: str) -> None:
            for done in range(1, 21):
                await report(journal, name, completed=done, total=20)

        await asyncio.gather(*(work(f"w{n}") for n in range(20)))
        events = await stored(journal, jobs())
        assert [e.sequence for e in events] == list(range(1, 401))
        own = messages(JobProgress, (e for e in events if e.key == "w7"))
        assert [state.percentage for state in own] == list(range(5, 101, 5))

    async def test_time_that_the_server_did_not_see_is_nobodys_silence(
        self, journal: Journal, clock: Clock
    ) -> None:
        await report(journal, heartbeat=timedelta(seconds=10))
        clock.advance(3600)  # the process was stopped, or the machine asleep
        await journal.prune()
        state = await journal.job("j")
        assert state is not None
        assert (state.status, state.stalled) == ("running", False)
        await pass_time(journal, clock, 60)
        assert (await journal.job("j")).status == "lost"  # type: ignore[union-attr]  # there

    async def test_jobs_that_have_not_ended_are_bounded(self, opener: Opener) -> None:
        async with await opener(options=JournalOptions(live_jobs=2)) as journal:
            await report(journal, "a")
            await report(journal, "b", status="pending")
            with pytest.raises(LimitError, match="2 jobs that have not ended"):
                await report(journal, "c")
            await report(journal, "a", percentage=5)
            await report(journal, "a", status="completed")
            await report(journal, "c")
            await journal.cancel_job("b")
            await report(journal, "d", status="failed")  # ended at once
            await report(journal, "e")
            with pytest.raises(LimitError):
                await journal.report_jobs([JobReport(job_id="f"), JobReport(job_id="g")])

    async def test_the_list_comes_in_pages(self, journal: Journal) -> None:
        names = [f"j{n:02}" for n in range(40)]
        for n, name in enumerate(names):
            await report(journal, name, error="\N{SNOWMAN}" * 1000 if n % 2 else "", completed=n)

        async def paged(**asked: Any) -> tuple[list[str], list[int]]:
            found: list[str] = []
            sizes: list[int] = []
            before = None
            while True:
                jobs, more = await journal.jobs(before=before, **asked)
                found += [job.job_id for job in jobs]
                sizes.append(sum(len(bytes(job)) for job in jobs))
                if not more:
                    return found, sizes
                before = jobs[-1].sequence

        newest_first = names[::-1]
        assert await paged(limit=7) == (newest_first, [*((await paged(limit=7))[1])])
        found, sizes = await paged(limit=100, max_bytes=10_000)
        assert found == newest_first
        assert 6_000 < max(sizes) <= 10_000
        assert await paged(limit=100, max_bytes=1) == (newest_first, [*(await paged(limit=1))[1]])
        assert (await paged(limit=3, statuses=["failed", "running"]))[0] == newest_first
        assert (await journal.jobs(limit=40)).more is False
        assert (await journal.jobs(limit=39)).more is True
