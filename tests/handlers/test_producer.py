"""ProducerService: what is acknowledged, refused, repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.codec import frame
from streamkit.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    Status,
    StoreError,
)
from streamkit.generated.streamservice import (
    CancelJobRequest,
    Control,
    Heartbeat,
    JobProgress,
    JobReport,
    ListJobsReply,
    ListJobsRequest,
    LogEntry,
    Producer,
    PublishRequest,
    SequenceRange,
    StartFrom,
    Update,
    WriteLogsRequest,
    WriteReply,
    WriteRequest,
)
from streamkit.handlers import ProducerHandler
from streamkit.handlers.pipeline import in_order
from streamkit.handlers.runs import Replies
from streamkit.journal import Journal, open_journal
from streamkit.journal.base import Stream
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.transport import Channel
from tests.handlers.calls import rest, subscribe, tail, take
from tests.handlers.conftest import Connected

PATH = "/streamservice.ProducerService/"


def unframed(data: bytes) -> list[WriteReply]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(WriteReply().parse(data[5 : 5 + size]))
        data = data[5 + size :]
    return found


async def publish(channel: Channel, *messages: str, producer: Producer | None = None) -> WriteReply:
    request = PublishRequest(updates=[Update(topic="t", message=text) for text in messages])
    if producer is not None:
        request.producer = producer
    return await channel.unary(PATH + "Publish", request, WriteReply)


async def job(channel: Channel, method: str, **fields: Any) -> JobProgress:
    return await channel.unary(PATH + method, JobReport(**fields), JobProgress)


async def test_a_publish_says_where_it_was_stored(journal: Journal, channel: Channel) -> None:
    reply = await publish(channel, "a", "b")
    assert (reply.epoch, reply.updates.first, reply.updates.count) == (journal.epoch, 1, 2)
    reply = await publish(channel, "c")
    assert reply.updates.first == 3
    async with subscribe(channel, "t", start=StartFrom(all=True)) as call:
        assert [update.message for update in await take(call, 3)] == ["a", "b", "c"]


async def test_a_repeated_publish_is_stored_once(journal: Journal, channel: Channel) -> None:
    first = await publish(channel, "a", producer=Producer("p", 1))
    await publish(channel, "b", producer=Producer("p", 2))
    again = await publish(channel, "a", producer=Producer("p", 1))
    assert again.updates.first == first.updates.first == 1
    assert again.producer_sequence == 1
    assert journal.bounds(Stream.UPDATES).newest == 2


async def test_logs_are_written_with_mapped_levels(channel: Channel) -> None:
    entries = [LogEntry(service="api", level=level, message=level) for level in ("CRITICAL", "")]
    request = WriteLogsRequest(producer=Producer("p", 1), entries=entries)
    for _ in range(2):
        reply = await channel.unary(PATH + "WriteLogs", request, WriteReply)
        assert (reply.logs.first, reply.logs.count) == (1, 2)
    async with tail(channel, "api") as call:
        stored = await rest(call)
    assert [(e.level, e.fields) for e in stored] == [("error", {"level": "CRITICAL"}), ("info", {})]
    assert all(entry.timestamp.year > 2000 for entry in stored)


@pytest.mark.parametrize(
    ("method", "request_message", "words"),
    [
        ("Publish", PublishRequest(), "updates must not be empty"),
        ("Publish", PublishRequest(updates=[Update(message="x")]), r"updates\[0\].topic"),
        (
            "Publish",
            PublishRequest(producer=Producer(id="p"), updates=[Update(topic="t")]),
            "producer.sequence",
        ),
        ("WriteLogs", WriteLogsRequest(), "entries must not be empty"),
        ("WriteLogs", WriteLogsRequest(entries=[LogEntry()]), r"entries\[0\].service"),
        ("UpdateJob", JobReport(), "job_id must not be empty"),
        ("UpdateJob", JobReport(job_id="j", percentage=200), "percentage"),
        ("FinishJob", JobReport(job_id="j", status="running"), "status must be one of"),
        ("CancelJob", CancelJobRequest(), "job_id must not be empty"),
        ("ListJobs", ListJobsRequest(limit=-1), "limit must not be negative"),
        ("ListJobs", ListJobsRequest(statuses=["x"]), r"statuses\[0\]"),
    ],
)
async def test_bad_requests_name_their_field(
    journal: Journal, channel: Channel, method: str, request_message: Any, words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        await channel.unary(PATH + method, request_message, WriteReply)
    assert [journal.bounds(stream).newest for stream in Stream] == [0, 0, 0]


async def test_what_the_server_sets_is_not_taken_from_a_producer(channel: Channel) -> None:
    control = Control(heartbeat=Heartbeat())
    update = Update(topic="t", message="m", sequence=77, skipped=5, control=control)
    await channel.unary(PATH + "Publish", PublishRequest(updates=[update]), WriteReply)
    entry = LogEntry(service="s", sequence=77, skipped=5, control=control)
    await channel.unary(PATH + "WriteLogs", WriteLogsRequest(entries=[entry]), WriteReply)
    async with subscribe(channel, "t", start=StartFrom(all=True)) as call:
        [stored] = await take(call, 1)
    async with tail(channel, "s") as call:
        [line] = await rest(call)
    for record in (stored, line):
        assert (record.sequence, record.skipped, record.is_set("control")) == (1, 0, False)


# ---- the pipelined stream ----


async def test_replies_come_in_order_and_a_refusal_does_not_end_the_stream(
    journal: Journal, channel: Channel
) -> None:
    requests = [
        WriteRequest(Producer("p", 1), updates=[Update(topic="t", message="1")]),
        WriteRequest(Producer("p", 2), updates=[Update(topic="t.*")]),
        WriteRequest(
            Producer("p", 3),
            updates=[Update(topic="t", message="3")],
            logs=[LogEntry(service="s", level="info"), LogEntry(service="s", level="info")],
            jobs=[JobReport(job_id="a", percentage=5), JobReport(job_id="b")],
        ),
        WriteRequest(Producer("p", 4)),
        WriteRequest(Producer("p", 1), updates=[Update(topic="t", message="1")]),
        WriteRequest(Producer("p", 5), logs=[LogEntry(service="s", level="info")]),
    ]
    async with channel.stream(PATH + "Write", WriteRequest, WriteReply) as call:
        for request in requests:
            await call.send(request)
        await call.end()
        replies = await rest(call)
    assert [reply.producer_sequence for reply in replies] == [1, 2, 3, 4, 1, 5]
    first, refused, third, empty, again, fifth = replies
    assert (first.code, first.updates.first, first.updates.count) == (0, 1, 1)
    assert refused.code == Status.INVALID_ARGUMENT.value
    assert refused.error.startswith("updates[0].topic must not contain wildcards")
    assert (third.updates.first, third.logs.first, third.logs.count) == (2, 1, 2)
    assert third.job_sequences == [1, 2]
    assert (empty.code, empty.updates.count) == (0, 0)
    assert again.updates.first == 1
    assert fifth.logs.first == 3
    assert all(reply.epoch == journal.epoch for reply in replies)
    assert journal.bounds(Stream.UPDATES).newest == 2


async def test_repeated_job_reports_on_the_stream_change_nothing(
    journal: Journal, channel: Channel
) -> None:
    first = WriteRequest(
        Producer("p", 1),
        jobs=[JobReport(job_id="a", current_step="one"), JobReport(job_id="b", current_step="one")],
    )
    second = WriteRequest(Producer("p", 2), jobs=[JobReport(job_id="a", current_step="two")])
    async with channel.stream(PATH + "Write", WriteRequest, WriteReply) as call:
        for request in (first, second, first):
            await call.send(request)
        await call.end()
        replies = await rest(call)
    assert [reply.job_sequences for reply in replies] == [[1, 2], [3], [1, 2]]
    state = await journal.job("a")
    assert state is not None and state.current_step == "two"


async def test_many_requests_are_in_flight(channel: Channel, journal: Journal) -> None:
    count = 3_000
    async with channel.stream(PATH + "Write", WriteRequest, WriteReply) as call:
        for number in range(1, count + 1):
            update = Update(topic="t", message=str(number))
            await call.send(WriteRequest(Producer("p", number), updates=[update]))
        await call.end()
        replies = await rest(call)
    assert [reply.updates.first for reply in replies] == list(range(1, count + 1))
    assert journal.bounds(Stream.UPDATES).newest == count


async def test_a_store_that_cannot_write_ends_the_stream(
    journal: Journal, connected: Connected
) -> None:
    class Full(ProducerHandler):
        async def _store(self, request: WriteRequest, logs_field: str = "logs") -> WriteReply:
            if request.producer.sequence == 2:
                raise StoreError("the disk is full")
            return await super()._store(request, logs_field)

    async with connected([Full(journal=journal)]) as channel:
        async with channel.stream(PATH + "Write", WriteRequest, WriteReply) as call:
            for number in (1, 2, 3):
                update = Update(topic="t", message="m")
                await call.send(WriteRequest(Producer("p", number), updates=[update]))
            replies: list[WriteReply] = []
            with pytest.raises(Exception, match="the disk is full") as raised:
                while True:
                    replies += await call.receive()
        assert [reply.producer_sequence for reply in replies] == [1]
        assert raised.value.status is Status.UNAVAILABLE  # type: ignore[attr-defined]  # every error of ours has it


# ---- jobs ----


async def test_the_life_of_a_job(channel: Channel) -> None:
    created = await job(channel, "CreateJob", job_id="j", status="pending", total=10)
    assert (created.status, created.total) == ("pending", 10)
    with pytest.raises(AlreadyExistsError):
        await job(channel, "CreateJob", job_id="j")
    running = await job(channel, "UpdateJob", job_id="j", completed=5, current_step="half")
    assert (running.status, running.percentage, running.current_step) == ("running", 50, "half")
    back = await job(channel, "UpdateJob", job_id="j", completed=3)
    assert back.percentage == 50
    done = await job(channel, "FinishJob", job_id="j", status="failed", error="no", exit_code=3)
    assert (done.status, done.error, done.exit_code) == ("failed", "no", 3)
    late = await job(channel, "UpdateJob", job_id="j", completed=9)
    assert (late.status, late.sequence) == ("failed", done.sequence)


async def test_an_id_of_the_servers_making(channel: Channel) -> None:
    first = await job(channel, "CreateJob")
    second = await job(channel, "CreateJob")
    assert first.job_id and second.job_id and first.job_id != second.job_id
    made = await job(channel, "CreateJob", producer=Producer("p", 1))
    again = await job(channel, "CreateJob", producer=Producer("p", 1))
    assert made.job_id == again.job_id
    assert made.sequence == again.sequence


async def test_cancelling(channel: Channel) -> None:
    with pytest.raises(NotFoundError):
        await channel.unary(PATH + "CancelJob", CancelJobRequest(job_id="j"), JobProgress)
    await job(channel, "CreateJob", job_id="waiting", status="pending")
    request = CancelJobRequest(job_id="waiting", reason="not needed")
    state = await channel.unary(PATH + "CancelJob", request, JobProgress)
    assert state.status == "cancelled"

    await job(channel, "UpdateJob", job_id="live", percentage=1)
    state = await channel.unary(PATH + "CancelJob", CancelJobRequest(job_id="live"), JobProgress)
    assert (state.status, state.cancel_requested) == ("running", True)
    async with channel.stream(PATH + "Write", WriteRequest, WriteReply) as call:
        reports = [JobReport(job_id="live", percentage=2), JobReport(job_id="free")]
        await call.send(WriteRequest(Producer("p", 1), jobs=reports))
        [reply] = await take(call, 1)
    assert reply.cancel_requested == ["live"]


async def test_listing(channel: Channel) -> None:
    for name in "abc":
        await job(channel, "UpdateJob", job_id=name)
    await job(channel, "FinishJob", job_id="b", status="completed")

    async def listed(**fields: Any) -> list[str]:
        reply = await channel.unary(PATH + "ListJobs", ListJobsRequest(**fields), ListJobsReply)
        return [state.job_id for state in reply.jobs]

    assert await listed() == ["b", "c", "a"]
    assert await listed(limit=1) == ["b"]
    assert await listed(statuses=["running"]) == ["c", "a"]


async def test_small_requests_that_come_together_are_answered_one_by_one(
    tmp_path: Path, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own answer: stored, refused, repeated, without a name."""
    runs: list[int] = []
    store = SqliteJournal.append_runs_soon

    def counted(self: SqliteJournal, batches: Any) -> Any:
        runs.append(len(batches))
        return store(self, batches)

    monkeypatch.setattr(SqliteJournal, "append_runs_soon", counted)
    async with (
        await open_journal(str(tmp_path / "store.db")) as journal,
        connected([ProducerHandler(journal=journal)]) as channel,
    ):
        requests = []
        for number in range(1, 601):
            updates = [Update(topic="t", message=str(number))] * (1 + number % 3 // 2)
            requests.append(WriteRequest(Producer("p", number), updates=updates))
        requests[100].updates[0].topic = "t.*"
        requests[200] = requests[5]
        requests[300] = WriteRequest(updates=[Update(topic="t")])
        requests[400] = WriteRequest(Producer("q", 7), logs=[LogEntry(service="s")])
        requests[500].producer = Producer("", 9)
        async with channel.stream(PATH + "Write", WriteRequest, WriteReply) as call:
            for request in requests:
                await call.send(request)
            await call.end()
            replies = await rest(call)
        assert max(runs) > 50
        assert [reply.producer_sequence for reply in replies] == [
            request.producer.sequence for request in requests
        ]
        assert [n for n, reply in enumerate(replies) if reply.code] == [100, 500]
        assert replies[400].logs == SequenceRange(1, 1)
        following = 1
        for place, (request, reply) in enumerate(zip(requests, replies, strict=True)):
            if place == 200:
                assert reply.updates == replies[5].updates
            elif place not in (100, 400, 500):
                assert reply.updates == SequenceRange(following, len(request.updates))
                following += len(request.updates)
        assert journal.bounds(Stream.UPDATES).newest == following - 1


@given(
    number=st.integers(0, 2**63 - 1), first=st.integers(1, 2**63), count=st.integers(1, 2**32 - 1)
)
def test_a_reply_is_what_the_codec_makes_of_it(number: int, first: int, count: int) -> None:
    reply = WriteReply(number, "an epoch", updates=SequenceRange(first, count))
    assert Replies("an epoch").stored(number, first, count) == frame(reply)


async def test_order_holds_when_the_store_is_behind(tmp_path: Path) -> None:
    """More is sent at once than the store takes in: what waits is still stored in order."""
    async with await open_journal(str(tmp_path / "store.db")) as journal:
        handler = ProducerHandler(journal=journal)
        updates = [Update(topic="t", message="m")] * 50

        async def requests() -> AsyncIterator[WriteRequest]:
            for number in range(1, 2_001):
                yield WriteRequest(Producer("p", number), updates=updates)

        firsts: list[int] = []
        async for replies in in_order(
            requests(),
            handler._answer,
            weigh=lambda _: 1,
            limit=2_000,
            budget=2_000,
            room=handler._room,
        ):
            firsts += [reply.updates.first for reply in unframed(b"".join(replies))]
        assert firsts == list(range(1, 100_001, 50))


async def test_nothing_overtakes_a_request_of_several_kinds(tmp_path: Path) -> None:
    async with await open_journal(str(tmp_path / "store.db")) as journal:
        handler = ProducerHandler(journal=journal)
        update, line = Update(topic="t", message="m"), LogEntry(service="s", level="info")

        async def requests() -> AsyncIterator[WriteRequest]:
            for number in range(1, 401):
                logs = [line] if number % 2 else []
                yield WriteRequest(Producer("p", number), updates=[update], logs=logs)

        replies: list[WriteReply] = []
        answers = handler.write(requests())
        async for framed in answers:
            assert isinstance(framed.data, bytes)
            replies += unframed(framed.data)
        assert [reply.producer_sequence for reply in replies] == list(range(1, 401))
        assert [reply.updates.first for reply in replies] == list(range(1, 401))


async def test_a_page_of_jobs_is_bounded(
    journal: Journal, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.handlers.producer._MOST_JOBS", 3)
    await journal.report_jobs([JobReport(job_id=f"j{n}") for n in range(5)])
    request = ListJobsRequest(limit=10)
    first = await channel.unary(PATH + "ListJobs", request, ListJobsReply)
    assert [job.job_id for job in first.jobs] == ["j4", "j3", "j2"]
    request.page_token = first.next_page_token
    second = await channel.unary(PATH + "ListJobs", request, ListJobsReply)
    assert [job.job_id for job in second.jobs] == ["j1", "j0"]
    assert second.next_page_token == ""
