"""Server-sent events: their form, their places, and what follows each ending."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import AsyncClient, Position, after
from streamkit.codec import decode, encode, to_json
from streamkit.doors.quick import record_json, stored_json
from streamkit.generated.streamservice import (
    Control,
    Heartbeat,
    JobProgress,
    LogEntry,
    Update,
)
from tests.client.servers import memory_server
from tests.doors.http import Reply, ask


async def take(reply: Reply, count: int) -> list[dict[str, str]]:
    """The next events that carry data."""
    found = []
    async with asyncio.timeout(10):
        async for event in reply.events():
            if "data" in event:
                found.append(event)
                if len(found) == count:
                    break
    return found


def texts(events: list[dict[str, str]]) -> list[str]:
    return [json.loads(event["data"])["message"] for event in events]


async def test_updates_are_events_whose_id_is_the_position(
    server: str, client: AsyncClient
) -> None:
    for n in range(5):
        await client.publish("orders.eu", f"text {n}\nwith a line", metadata={"n": str(n)})
    async with ask(server, "GET", "/v1/updates?topic=orders.*&last=2") as reply:
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        one, two = await take(reply, 2)
    epoch = (await client.status()).epoch
    assert (one["id"], two["id"]) == (f"{epoch}.4", f"{epoch}.5")
    said = json.loads(two["data"])
    assert said["topic"] == "orders.eu"
    assert said["message"] == "text 4\nwith a line"
    assert said["metadata"] == {"n": "4"}


async def test_a_reader_goes_on_where_it_stopped_whatever_it_read_with(
    server: str, client: AsyncClient
) -> None:
    for n in range(9):
        await client.publish("orders", str(n))
    seen: list[str] = []
    async with ask(server, "GET", "/v1/updates?all=1") as reply:
        events = await take(reply, 3)
        seen += texts(events)
    async with ask(server, "GET", "/v1/updates", last_event_id=events[-1]["id"]) as reply:
        events = await take(reply, 3)
        seen += texts(events)
    epoch, _, number = events[-1]["id"].rpartition(".")
    async with client.subscribe("orders", start=after(Position(epoch, int(number)))) as updates:
        async for update in updates:
            seen.append(update.message)
            if len(seen) == 9:
                break
    assert seen == [str(n) for n in range(9)]


async def test_the_header_outranks_the_address(server: str, client: AsyncClient) -> None:
    for n in range(4):
        await client.publish("orders", str(n))
    epoch = (await client.status()).epoch
    target = f"/v1/updates?after={epoch}.1"
    async with ask(server, "GET", target) as reply:
        assert texts(await take(reply, 1)) == ["1"]
    async with ask(server, "GET", target, last_event_id=f"{epoch}.3") as reply:
        assert texts(await take(reply, 1)) == ["3"]


async def test_the_place_of_another_life_is_a_gap_and_then_everything(
    server: str, client: AsyncClient
) -> None:
    await client.publish("orders", "one")
    async with ask(server, "GET", "/v1/updates", last_event_id="00ff.7") as reply:
        gap, one = await take(reply, 2)
    assert gap["event"] == "gap"
    assert json.loads(gap["data"])["reason"] == "the position is of another journal"
    assert json.loads(one["data"])["message"] == "one"


async def test_logs_by_service_and_level(server: str, client: AsyncClient) -> None:
    async with client.log_writer("api") as log:
        await log.send("fine", level="info")
        await log.send("broken", level="error")
    async with ask(server, "GET", "/v1/logs?service=a*&level=warn&all=1") as reply:
        (event,) = await take(reply, 1)
    assert json.loads(event["data"])["message"] == "broken"


async def test_a_finished_job_ends_and_is_not_asked_for_again(
    server: str, client: AsyncClient
) -> None:
    async with client.job("build", total=2), ask(server, "GET", "/v1/jobs/build") as reply:
        (first,) = await take(reply, 1)
        assert json.loads(first["data"])["status"] == "running"
    async with ask(server, "GET", "/v1/jobs/build") as reply:
        state, end = await take(reply, 2)
        assert json.loads(state["data"])["status"] == "completed"
        assert end["event"] == "end"
        assert await reply.chunk() == b""
    async with ask(server, "GET", "/v1/jobs/build", last_event_id=end["id"]) as reply:
        assert reply.status == 204


async def test_all_jobs_are_one_stream(server: str, client: AsyncClient) -> None:
    async with (
        client.job("build-1"),
        client.job("build-2"),
        ask(server, "GET", "/v1/jobs") as reply,
    ):
        first, second = await take(reply, 2)
    assert {json.loads(event["data"])["jobId"] for event in (first, second)} == {
        "build-1",
        "build-2",
    }


async def test_several_sources_share_a_response_and_their_places(
    server: str, client: AsyncClient
) -> None:
    await client.publish("orders", "update 1")
    async with client.log_writer("api") as log:
        await log.send("line 1")
    target = "/v1/live?topic=orders&service=api&all=1"
    async with ask(server, "GET", target) as reply:
        events = await take(reply, 2)
    assert sorted(event["event"] for event in events) == ["log", "update"]
    place = events[-1]["id"]
    epoch = (await client.status()).epoch
    assert set(place.split(",")) == {f"update:{epoch}.1", f"log:{epoch}.1"}
    await client.publish("orders", "update 2")
    async with client.log_writer("api") as log:
        await log.send("line 2")
    async with ask(server, "GET", target, last_event_id=place) as reply:
        assert sorted(texts(await take(reply, 2))) == ["line 2", "update 2"]


async def test_silence_is_a_comment_that_carries_the_place(
    client: AsyncClient, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamkit.config import DoorLimits
    from streamkit.doors import door

    monkeypatch.setattr(door, "DoorLimits", lambda: DoorLimits(heartbeat=0.1))
    async with memory_server(web=True) as address, AsyncClient(address) as other:
        await other.publish("elsewhere", "x")
        async with ask(address, "GET", "/v1/updates?topic=orders") as reply:
            async with asyncio.timeout(10):
                async for event in reply.events():
                    if "id" in event:
                        break
        assert event["id"] == f"{(await other.status()).epoch}.1"
        assert "data" not in event


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/v1/updates?last=x", 400, "last: 'x' is no number"),
        ("/v1/updates?last=1&since=2026-01-01", 400, "exclude each other"),
        ("/v1/updates?since=never", 400, "since: 'never' is no time"),
        ("/v1/updates?after=12", 400, "is no position"),
        ("/v1/updates?after=00.9999999999999999999", 400, "is no number"),
        ("/v1/updates?topic=a..b", 400, "topic"),
        ("/v1/updates?" + "topic=a&" * 101, 400, "more than 100 names"),
        ("/v1/logs?level=loud", 400, "loud"),
        ("/v1/jobs/nowhere", 404, "no job"),
        ("/v1/nothing", 404, "no such events"),
        ("/v1/live", 404, "no such events"),
        ("/v1/updates?topic=%ff", 400, ""),
        ("*", 400, "cannot be read"),
    ],
)
async def test_what_cannot_be_read_is_refused_before_it_begins(
    target: str, status: int, said: str, server: str
) -> None:
    async with ask(server, "GET", target) as reply:
        body = (await reply.body()).decode()
        assert (reply.status, said in body) == (status, True), body


async def test_events_are_read_and_never_changed(server: str) -> None:
    async with ask(server, "POST", "/v1/updates", b"{}", content_type="text/plain") as reply:
        assert reply.status == 405


async def test_many_readers_share_what_was_made_once(
    server: str, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamkit.doors import events

    made: list[Any] = []
    original = events.stored_json  # type: ignore[attr-defined]  # where it is looked up

    def stored_json(*data: Any) -> Any:
        made.append(data)
        return original(*data)

    monkeypatch.setattr(events, "stored_json", stored_json)
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        ready = [asyncio.Event() for _ in range(20)]

        async def read(begun: asyncio.Event) -> list[dict[str, str]]:
            async with ask(server, "GET", "/v1/updates") as reply:
                begun.set()
                return await take(reply, 3)

        readers = [group.create_task(read(begun)) for begun in ready]
        for begun in ready:
            await begun.wait()
        for n in range(3):
            await client.publish("orders", str(n))
    assert all(texts(reader.result()) == ["0", "1", "2"] for reader in readers)
    assert len(made) == 3


texts_of_any_kind = st.text(max_size=12)
moments = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
)
pairs = st.dictionaries(texts_of_any_kind, texts_of_any_kind, max_size=3)


@given(
    texts_of_any_kind, texts_of_any_kind, texts_of_any_kind, st.none() | moments, pairs,
    st.integers(0, 2**64 - 1), st.integers(0, 5),
)  # fmt: skip
def test_the_quick_json_is_the_codecs_own(
    one: str,
    two: str,
    three: str,
    time: datetime | None,
    more: dict[str, str],
    sequence: int,
    skipped: int,
) -> None:
    update = Update(topic=one, message=two, metadata=more, sequence=sequence, skipped=skipped)
    entry = LogEntry(level=three, message=two, service=one, fields=more, sequence=sequence)
    for message in (update, entry):
        if time is not None:
            message.timestamp = time.replace(microsecond=time.microsecond // 1000 * 1000)
            assert record_json(message) == to_json(message)
            message.timestamp = time
        assert record_json(message) == to_json(message)
        data = encode(message)
        read = decode(type(message), data)
        assert record_json(read) == to_json(read)
        quick = stored_json(type(message), b"\0" + data, 1, len(data) + 1)
        # Before 1970, and with an empty key or value, it is the codec that writes it.
        if quick is not None:
            assert quick == (sequence, to_json(read))
        elif time is None and all(map(all, more.items())):
            raise AssertionError("this is a usual one")


def test_what_is_unusual_is_left_to_the_codec() -> None:
    usual = encode(Update(topic="a", message="b", sequence=300))
    assert stored_json(Update, usual, 0, len(usual)) == (
        300,
        '{"topic":"a","message":"b","sequence":"300"}',
    )
    for data in (
        encode(Update(control=Control(heartbeat=Heartbeat()))),
        usual + b"\x0a\x01c",  # a field again
        usual[:-1],  # cut off
        usual + b"\x50" + b"\xff" * 12,
        b"\x12\x02\xff\xfe",
        b"\x1a\x0b\x08" + b"\xff" * 9 + b"\x01",  # before 1970
    ):
        assert stored_json(Update, data, 0, len(data)) is None
    assert stored_json(JobProgress, b"", 0, 0) is None
