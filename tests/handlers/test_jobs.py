"""WatchJobProgress: the state at once, every change, the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from streamkit.errors import InvalidArgumentError, NotFoundError
from streamkit.generated.streamservice import JobProgress, JobReport, StartFrom, StreamOptions
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.journal import Journal
from streamkit.transport import Channel
from tests.handlers.calls import rest, take, watch, watch_all


async def report(journal: Journal, job_id: str = "build", **fields: object) -> JobProgress:
    [state] = await journal.report_jobs([JobReport(job_id=job_id, **fields)])  # type: ignore[arg-type]  # fields of the test's own
    return state


async def test_state_at_once_every_change_and_the_end(journal: Journal, channel: Channel) -> None:
    await report(journal, percentage=10, current_step="compile")
    async with watch(channel, "build") as call:
        [state] = await take(call, 1)
        assert (state.status, state.percentage, state.current_step) == ("running", 10, "compile")
        await report(journal, "other", percentage=50)
        await report(journal, percentage=40)
        await report(journal, percentage=80, current_step="link")
        await report(journal, status="completed")
        changes = await rest(call)
    assert [(c.percentage, c.status) for c in changes] == [
        (40, "running"),
        (80, "running"),
        (100, "completed"),
    ]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_finished_job_gives_its_result_and_ends(
    journal: Journal, channel: Channel, status: str
) -> None:
    await report(journal, percentage=30)
    await report(journal, status=status, error="why" if status == "failed" else "")
    async with watch(channel, "build") as call:
        [state] = await rest(call)
    assert state.status == status
    assert state.error == ("why" if status == "failed" else "")


async def test_an_unknown_job_is_not_found_at_once(channel: Channel) -> None:
    async with watch(channel, "nothing") as call:
        with pytest.raises(NotFoundError, match="'nothing'"):
            await call.receive()


async def test_an_unknown_job_is_waited_for(journal: Journal, channel: Channel) -> None:
    async with watch(channel, "build", wait=timedelta(seconds=30)) as call:
        await call.initial_metadata()
        await report(journal, status="pending")
        [state] = await take(call, 1)
        assert state.status == "pending"
        await report(journal, status="failed", error="no")
        [last] = await rest(call)
        assert (last.status, last.error) == ("failed", "no")


async def test_waiting_has_an_end_and_a_heartbeat(channel: Channel) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    options = StreamOptions(heartbeat=timedelta(seconds=0.1))
    async with watch(channel, "build", wait=timedelta(seconds=0.5), options=options) as call:
        beats: list[JobProgress] = []
        with pytest.raises(NotFoundError):
            while True:
                beats += await call.receive()
    assert loop.time() - begin >= 0.5
    assert beats
    assert all(beat.control.heartbeat.position.epoch for beat in beats)


async def test_resuming_gives_every_change_after_the_position(
    journal: Journal, channel: Channel
) -> None:
    states = [await report(journal, percentage=step) for step in (10, 20, 30, 40)]
    await report(journal, status="completed")
    place = WirePosition(epoch=journal.epoch, sequence=states[1].sequence)
    async with watch(channel, "build", start=StartFrom(after=place)) as call:
        assert [change.percentage for change in await rest(call)] == [30, 40, 100]


async def test_resuming_after_the_end_ends(journal: Journal, channel: Channel) -> None:
    await report(journal, percentage=10)
    last = await report(journal, status="failed")
    await report(journal, "other")
    for sequence in (last.sequence, last.sequence + 1):
        place = WirePosition(epoch=journal.epoch, sequence=sequence)
        async with watch(channel, "build", start=StartFrom(after=place)) as call:
            assert await rest(call) == []


async def test_the_whole_history_of_a_job(journal: Journal, channel: Channel) -> None:
    for step in (10, 20):
        await report(journal, percentage=step)
    await report(journal, status="cancelled")
    async with watch(channel, "build", start=StartFrom(all=True)) as call:
        assert [c.status for c in await rest(call)] == ["running", "running", "cancelled"]


async def test_only_new_changes_of_a_finished_job_is_its_result(
    journal: Journal, channel: Channel
) -> None:
    await report(journal, status="completed")
    async with watch(channel, "build", start=StartFrom(new=True)) as call:
        [state] = await rest(call)
    assert state.status == "completed"


@pytest.mark.parametrize(
    ("job_id", "wait", "words"), [("", 0, "job_id must not be empty"), ("a", -1, "wait")]
)
async def test_bad_requests(channel: Channel, job_id: str, wait: int, words: str) -> None:
    async with watch(channel, job_id, wait=timedelta(seconds=wait)) as call:
        with pytest.raises(InvalidArgumentError, match=words):
            await call.receive()


# Every job at once -------------------------------------------------------------------------------


def told(found: list[JobProgress]) -> list[tuple[str, int, str]]:
    return [(one.job_id, one.percentage, one.status) for one in found]


async def test_live_jobs_at_once_and_then_every_change(journal: Journal, channel: Channel) -> None:
    await report(journal, "old", status="completed")
    await report(journal, "a", percentage=10)
    await report(journal, "b", percentage=20)
    async with watch_all(channel) as call:
        assert sorted(told(await take(call, 2))) == [("a", 10, "running"), ("b", 20, "running")]
        await report(journal, "b", status="completed")
        await report(journal, "c", percentage=1)
        await report(journal, "b", percentage=50)
        await report(journal, "a", percentage=30)
        assert told(await take(call, 3)) == [
            ("b", 100, "completed"),
            ("c", 1, "running"),
            ("a", 30, "running"),
        ]


async def test_only_the_jobs_that_a_pattern_finds(journal: Journal, channel: Channel) -> None:
    await report(journal, "build-1", percentage=1)
    await report(journal, "deploy", percentage=2)
    async with watch_all(channel, "build-*", "x") as call:
        assert told(await take(call, 1)) == [("build-1", 1, "running")]
        await report(journal, "deploy", percentage=3)
        await report(journal, "x", percentage=4)
        assert told(await take(call, 1)) == [("x", 4, "running")]


async def test_a_place_gives_what_came_after_it_and_no_states(
    journal: Journal, channel: Channel
) -> None:
    first = await report(journal, "a", percentage=10)
    await report(journal, "a", percentage=20)
    await report(journal, "b", status="completed")
    start = StartFrom(after=WirePosition(journal.epoch, first.sequence))
    async with watch_all(channel, start=start) as call:
        assert told(await take(call, 2)) == [("a", 20, "running"), ("b", 100, "completed")]


async def test_bad_patterns_of_jobs_name_their_field(channel: Channel) -> None:
    async with watch_all(channel, "") as call:
        with pytest.raises(InvalidArgumentError, match=r"jobs\[0\]"):
            await call.receive()
