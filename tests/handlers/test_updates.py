"""SubscribeToUpdates: what a subscriber gets, and what it never sees."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamkit.config import JournalOptions, Retention
from streamkit.errors import (
    ConnectError,
    InvalidArgumentError,
    PreconditionError,
    StreamGapError,
)
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.generated.streamservice import StartFrom, StreamOptions, Update
from streamkit.handlers import UpdatesHandler
from streamkit.journal import open_journal
from streamkit.journal.base import (
    Delivery,
    Item,
    Journal,
    Loss,
    Position,
    Record,
    Selector,
    Start,
    Stream,
)
from streamkit.transport import Channel
from tests.handlers.calls import subscribe, take
from tests.handlers.conftest import Connected


async def publish(journal: Journal, *topics: str) -> None:
    await journal.append_updates([Update(topic=topic, message=f"of {topic}") for topic in topics])


async def test_only_the_topics_that_were_asked_for(journal: Journal, channel: Channel) -> None:
    async with subscribe(channel, "orders.*", "alerts.>") as call:
        await call.initial_metadata()
        await publish(journal, "orders", "orders.eu", "orders.eu.new", "alerts.a.b", "other")
        got = await take(call, 2)
    assert [(u.topic, u.message, u.sequence) for u in got] == [
        ("orders.eu", "of orders.eu", 2),
        ("alerts.a.b", "of alerts.a.b", 4),
    ]
    assert all(not update.is_set("control") for update in got)


async def test_a_subscription_is_in_force_with_its_initial_metadata(
    journal: Journal, channel: Channel
) -> None:
    await publish(journal, "a", "a", "a")
    async with subscribe(channel, "a") as call:
        metadata = await call.initial_metadata()
        assert metadata["streamkit-epoch"] == journal.epoch
        assert metadata["streamkit-position"] == "3"
        await publish(journal, "a")
        [update] = await take(call, 1)
        assert update.sequence == 4


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (StartFrom(all=True), 1),
        (StartFrom(last=2), 4),
        (StartFrom(last=0), 6),
        (StartFrom(new=True), 6),
        (StartFrom(since=datetime.now(UTC) - timedelta(hours=1)), 1),
        (StartFrom(since=datetime.now(UTC) + timedelta(hours=1)), 6),
    ],
)
async def test_starts(journal: Journal, channel: Channel, start: StartFrom, first: int) -> None:
    await publish(journal, *"aaaaa")
    async with subscribe(channel, "a", start=start) as call:
        metadata = await call.initial_metadata()
        await publish(journal, "a")
        got = await take(call, 7 - first)
    assert [update.sequence for update in got] == list(range(first, 7))
    assert metadata["streamkit-position"] == str(first - 1)


async def test_a_resumed_stream_has_neither_gap_nor_repetition(
    journal: Journal, channel: Channel
) -> None:
    await publish(journal, *"abababab")
    place = WirePosition(epoch=journal.epoch, sequence=3)
    async with subscribe(channel, "b", start=StartFrom(after=place)) as call:
        got = await take(call, 3)
    assert [update.sequence for update in got] == [4, 6, 8]


async def test_a_position_of_another_life_is_refused(channel: Channel) -> None:
    place = WirePosition(epoch="another", sequence=0)
    async with subscribe(channel, "a", start=StartFrom(after=place)) as call:
        with pytest.raises(PreconditionError):
            await call.receive()


@pytest.mark.parametrize(
    ("topics", "words"), [([], "topics must not be empty"), (["a.*b"], "topics[0]")]
)
async def test_bad_topics(channel: Channel, topics: list[str], words: str) -> None:
    async with subscribe(channel, *topics) as call:
        with pytest.raises(InvalidArgumentError, match=words.replace("[", r"\[")):
            await call.receive()


async def test_negative_heartbeat(channel: Channel) -> None:
    options = StreamOptions(heartbeat=timedelta(seconds=-1))
    async with subscribe(channel, "a", options=options) as call:
        with pytest.raises(InvalidArgumentError, match=r"options\.heartbeat"):
            await call.receive()


async def test_heartbeats_are_for_those_who_asked(journal: Journal, channel: Channel) -> None:
    options = StreamOptions(heartbeat=timedelta(seconds=0.1))
    async with subscribe(channel, "a", options=options) as asked, subscribe(channel, "a") as plain:
        await plain.initial_metadata()
        await publish(journal, "b")
        beats: list[Update] = []
        while len(beats) < 2:
            beats += await asked.receive()
        for beat in beats:
            assert beat.topic == beat.message == ""
            assert beat.control.heartbeat.position.epoch == journal.epoch
        assert beats[-1].control.heartbeat.position.sequence == 1
        await publish(journal, "a")
        [update] = await take(plain, 1)
        assert update.sequence == 2
        assert not update.is_set("control")


async def test_a_closed_journal_ends_live_streams_with_a_status(
    journal: Journal, connected: Connected
) -> None:
    async with (
        connected([UpdatesHandler(journal=journal)]) as channel,
        subscribe(channel, "a") as call,
    ):
        await call.initial_metadata()
        await journal.close()
        with pytest.raises(ConnectError):
            await call.receive()


# ---- what only some journals do, from one that is told what to do ----


class Scripted:
    """Stands for a journal whose reads give what the test says."""

    epoch = "e"

    def __init__(self, *deliveries: Delivery[Record] | Exception) -> None:
        self.deliveries = deliveries
        self.asked: dict[str, Any] = {}

    async def read(
        self, selector: Selector, start: Start, **manner: Any
    ) -> AsyncGenerator[Delivery[Record], None]:
        self.asked = manner
        for delivery in self.deliveries:
            if isinstance(delivery, Exception):
                raise delivery
            yield delivery


def entry(sequence: int, topic: str) -> Item[Record]:
    return Item(sequence, topic, 0, Update(topic=topic, message="m", sequence=sequence))


async def test_a_position_that_is_no_longer_kept(connected: Connected) -> None:
    journal = Scripted(StreamGapError("too old", oldest=40, newest=90))
    handler = UpdatesHandler(journal=journal)  # type: ignore[arg-type]  # all that is called
    async with connected([handler]) as channel, subscribe(channel, "a") as call:
        with pytest.raises(StreamGapError) as raised:
            await call.receive()
        assert call.trailing_metadata is not None
        assert call.trailing_metadata["streamkit-oldest"] == "40"
        assert call.trailing_metadata["streamkit-newest"] == "90"
    assert raised.value.message == "too old"
    assert journal.asked["tell_loss"] is False


async def test_a_loss_is_told_to_those_who_asked(connected: Connected) -> None:
    place = Position("e", 0)
    end = Position("e", 41)
    journal = Scripted(Delivery([], place), Delivery([entry(41, "a")], end, loss=Loss(1, 40)))
    handler = UpdatesHandler(journal=journal)  # type: ignore[arg-type]  # all that is called
    options = StreamOptions(gaps=True)
    async with connected([handler]) as channel, subscribe(channel, "a", options=options) as call:
        told, update = await take(call, 2)
    assert (told.control.gap.first, told.control.gap.last) == (1, 40)
    assert "retention" in told.control.gap.reason
    assert (update.sequence, update.is_set("control")) == (41, False)
    assert journal.asked["tell_loss"] is True


async def test_latest_says_what_was_passed_over(connected: Connected) -> None:
    shared = entry(8, "b")
    batch = Delivery([entry(5, "a"), shared], Position("e", 8), skipped={"b": 3})
    journal = Scripted(Delivery([], Position("e", 0)), batch)
    handler = UpdatesHandler(journal=journal)  # type: ignore[arg-type]  # all that is called
    options = StreamOptions(latest=True)
    async with connected([handler]) as channel, subscribe(channel, "a", options=options) as call:
        got = await take(call, 2)
    assert [(u.topic, u.sequence, u.skipped) for u in got] == [("a", 5, 0), ("b", 8, 3)]
    assert isinstance(shared.message, Update)
    assert shared.message.skipped == 0, "a record that others read, too, was changed"
    assert journal.asked["latest"] is True


async def test_what_retention_removed_is_told(connected: Connected) -> None:
    """With a real journal: an error with the bounds for one, a gap record for the other."""
    retention = Retention(max_age=0, max_bytes=100_000)
    options = JournalOptions(retention=retention, ring_records=16)
    async with await open_journal(":memory:", options) as journal:
        for _ in range(500):
            await journal.append_updates([Update(topic="a", message="x" * 500)])
        await journal.sweep()  # type: ignore[attr-defined]  # the engines' own
        oldest, newest = journal.bounds(Stream.UPDATES)
        assert 1 < oldest < newest == 500
        after = StartFrom(after=WirePosition(epoch=journal.epoch, sequence=1))
        async with connected([UpdatesHandler(journal=journal)]) as channel:
            async with subscribe(channel, "a", start=after) as call:
                with pytest.raises(StreamGapError):
                    await call.receive()
                assert call.trailing_metadata is not None
                assert call.trailing_metadata["streamkit-oldest"] == str(oldest)
                assert call.trailing_metadata["streamkit-newest"] == "500"
            options_with_gaps = StreamOptions(gaps=True)
            async with subscribe(channel, "a", start=after, options=options_with_gaps) as call:
                told, *rest = await take(call, 1 + newest - oldest + 1)
            assert (told.control.gap.first, told.control.gap.last) == (2, oldest - 1)
            assert [update.sequence for update in rest] == list(range(oldest, newest + 1))


async def test_history_of_many_records_arrives_whole(connected: Connected) -> None:
    async with await open_journal(":memory:") as journal:
        texts = [f"{number} " + "x" * 200 for number in range(5_000)]
        for begin in range(0, len(texts), 500):
            part = texts[begin : begin + 500]
            await journal.append_updates([Update(topic="a", message=text) for text in part])
        handler = UpdatesHandler(journal=journal)
        async with (
            connected([handler]) as channel,
            subscribe(channel, "a", start=StartFrom(all=True)) as call,
        ):
            got = await take(call, len(texts))
            assert [update.message for update in got] == texts


async def test_nobody_gets_heartbeats_faster_than_ten_a_second(
    journal: Journal, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []
    read = type(journal).read

    def noted(self: Journal, *what: Any, heartbeat: float | None = None, **more: Any) -> Any:
        asked.append(heartbeat)
        return read(self, *what, heartbeat=heartbeat, **more)

    monkeypatch.setattr(type(journal), "read", noted)
    for wanted in (0.001, 0.5):
        options = StreamOptions(heartbeat=timedelta(seconds=wanted))
        async with subscribe(channel, "a", options=options) as call:
            await call.initial_metadata()
    async with subscribe(channel, "a") as call:
        await call.initial_metadata()
    assert asked == [0.1, 0.5, None]
