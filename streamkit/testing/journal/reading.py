"""What every journal does, whatever it stores to. An engine's tests subclass these classes and
give them an `opener` fixture."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamkit.config import JournalOptions
from streamkit.errors import (
    InvalidArgumentError,
    PreconditionError,
    StoreError,
)
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.journal import (
    Appended,
    Bounds,
    Journal,
    Position,
    ProducerId,
    Start,
    Stream,
    joined_frames,
)
from streamkit.testing.journal.support import (
    BEGAN,
    Clock,
    Opener,
    following,
    log,
    logs,
    messages,
    stored,
    texts,
    topics,
    updates,
)

SMALL_RING = JournalOptions(ring_records=8)


class Writing:
    """Appending."""

    async def test_sequences_are_contiguous_over_all_keys(self, journal: Journal) -> None:
        assert await journal.append_updates(updates("a", "b", topic="x")) == Appended(1, 2)
        assert await journal.append_updates(updates("c", topic="y")) == Appended(3, 1)
        assert await journal.append_logs([log("l")]) == Appended(1, 1)
        found = await stored(journal, topics())
        assert [(e.sequence, e.message.sequence, e.key) for e in found] == [
            (1, 1, "x"),
            (2, 2, "x"),
            (3, 3, "y"),
        ]
        assert journal.bounds(Stream.UPDATES) == Bounds(1, 3)
        assert journal.bounds(Stream.LOGS) == Bounds(1, 1)
        assert journal.bounds(Stream.JOBS) == Bounds(1, 0)

    async def test_a_record_comes_back_as_it_was(self, journal: Journal) -> None:
        time = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
        text = 'all \x00 of " it \\u0000 \n \U0001f600 é'
        update = Update(topic="t", message=text, timestamp=time, metadata={"k\x00": "v", "": "é"})
        entry = LogEntry(service="", level="warn", message=text, timestamp=time, fields={"a": "b"})
        await journal.append_updates([update])
        await journal.append_logs([entry])
        (first,) = await stored(journal, topics())
        update.sequence = 1
        assert first.message == update
        (line,) = await stored(journal, logs())
        entry.sequence = 1
        assert line.message == entry
        assert line.rank == 2

    async def test_a_live_record_is_the_stored_one(self, journal: Journal) -> None:
        async with following(journal, topics()) as live:
            await journal.append_updates(
                [Update(topic="t", message="m", metadata={"k": "v"}), *updates("n")]
            )
            assert [e.message for e in await live.until(2)] == [
                e.message for e in await stored(journal, topics())
            ]

    async def test_a_missing_time_is_now_and_others_are_utc(
        self, journal: Journal, clock: Clock
    ) -> None:
        clock.advance(5)
        elsewhere = datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
        await journal.append_updates(
            [Update(topic="t"), Update(topic="t", timestamp=elsewhere)],
        )
        found = [u.timestamp for u in messages(Update, await stored(journal, topics()))]
        assert found == [BEGAN + timedelta(seconds=5), datetime(2026, 1, 1, 12, tzinfo=UTC)]
        assert all(time.tzinfo is UTC for time in found)

    async def test_the_callers_message_stays_the_callers(self, journal: Journal) -> None:
        update = Update(topic="t", message="a", metadata={"k": "1"})
        async with following(journal, topics()) as live:
            await journal.append_updates([update])
            update.message = "b"
            update.metadata["k"] = "2"
            await journal.append_updates([update])
            await live.until(2)
        assert [u.metadata for u in messages(Update, live.entries)] == [{"k": "1"}, {"k": "2"}]
        assert texts(live.entries) == ["a", "b"]
        assert update.sequence == 0

    async def test_a_level_that_is_none_refuses_the_whole_batch(self, journal: Journal) -> None:
        with pytest.raises(InvalidArgumentError, match="level"):
            await journal.append_logs([log("a"), log("b", "loud")])
        assert journal.bounds(Stream.LOGS).newest == 0
        assert await journal.append_logs([log("c")]) == Appended(1, 1)

    async def test_text_that_is_none_refuses_only_its_batch(self, journal: Journal) -> None:
        bad = Update(topic="t", message="\ud800")
        answers = await asyncio.gather(
            *(journal.append_updates([u]) for u in [*updates("a"), *updates("b")]),
            journal.append_logs([log("l")]),
        )
        assert [a.count for a in answers] == [1, 1, 1]
        wrong = Update(topic="t", message="x", metadata={"k": 1})  # type: ignore[dict-item]  # wrong on purpose
        with pytest.raises(InvalidArgumentError, match="metadata"):
            await journal.append_updates([*updates("c"), wrong])
        results = await asyncio.gather(
            journal.append_updates([bad]),
            journal.append_updates(updates("d")),
            return_exceptions=True,
        )
        assert isinstance(results[0], InvalidArgumentError)
        assert isinstance(results[1], Appended)
        assert texts(await stored(journal, topics()))[-1] == "d"

    async def test_an_empty_batch_stores_nothing(self, journal: Journal) -> None:
        assert (await journal.append_updates([])).count == 0
        assert journal.bounds(Stream.UPDATES) == Bounds(1, 0)

    async def test_a_cancelled_append_leaves_the_journal_sound(self, journal: Journal) -> None:
        task = asyncio.create_task(journal.append_updates(updates("a", "b")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        last = await journal.append_updates(updates("c"))
        assert last.first in (1, 3)
        assert len(await stored(journal, topics())) == last.first

    async def test_many_writers_at_once_are_stored_each_once(self, journal: Journal) -> None:
        async def write(name: str) -> None:
            for n in range(20):
                await journal.append_updates(updates(f"{n}", f"{n}+", topic=name))

        await asyncio.gather(*(write(f"w{n}") for n in range(32)))
        found = await stored(journal, topics())
        assert [e.sequence for e in found] == list(range(1, 32 * 40 + 1))
        for name in ("w0", "w31"):
            own = texts(e for e in found if e.key == name)
            assert own == [t for n in range(20) for t in (f"{n}", f"{n}+")]

    async def test_a_closed_journal_refuses_writes(self, journal: Journal) -> None:
        await journal.close()
        await journal.close()
        with pytest.raises(StoreError, match="closed"):
            await journal.append_updates(updates("a"))


class Producers:
    """Repeated requests."""

    async def test_a_repeat_stores_nothing_and_gets_the_first_answer(
        self, journal: Journal
    ) -> None:
        first = await journal.append_updates(updates("a", "b"), ProducerId("p", 1))
        await journal.append_updates(updates("c"), ProducerId("p", 2))
        assert await journal.append_updates(updates("a", "b"), ProducerId("p", 1)) == first
        assert texts(await stored(journal, topics())) == ["a", "b", "c"]

    async def test_a_repeat_at_the_same_time_is_one_too(self, journal: Journal) -> None:
        answers = await asyncio.gather(
            *(journal.append_updates(updates("a"), ProducerId("p", 1)) for _ in range(5))
        )
        assert answers == [Appended(1, 1)] * 5
        assert len(await stored(journal, topics())) == 1

    async def test_streams_and_producers_count_apart(self, journal: Journal) -> None:
        await journal.append_updates(updates("a"), ProducerId("p", 1))
        assert await journal.append_logs([log("l")], ProducerId("p", 1)) == Appended(1, 1)
        assert await journal.append_updates(updates("b"), ProducerId("q", 1)) == Appended(2, 1)

    async def test_requests_may_come_out_of_order(self, journal: Journal) -> None:
        for sequence in (3, 1, 2, 3, 1):
            await journal.append_updates(updates(str(sequence)), ProducerId("p", sequence))
        assert texts(await stored(journal, topics())) == ["3", "1", "2"]

    async def test_what_cannot_name_a_request_is_refused(self, journal: Journal) -> None:
        for producer in (ProducerId("", 1), ProducerId("p", 0), ProducerId("p", -1)):
            with pytest.raises(InvalidArgumentError, match="producer"):
                await journal.append_updates(updates("a"), producer)

    async def test_a_request_older_than_what_is_remembered_is_refused(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("streamkit.journal.rules.dedupe.REQUESTS", 4)
        monkeypatch.setattr("streamkit.journal.rules.dedupe._FORGET_AT_ONCE", 2)
        for sequence in range(1, 11):
            await journal.append_updates(updates(str(sequence)), ProducerId("p", sequence))
        with pytest.raises(PreconditionError, match="too old"):
            await journal.append_updates(updates("1"), ProducerId("p", 1))
        again = await journal.append_updates(updates("9"), ProducerId("p", 9))
        assert again == Appended(9, 1)
        assert len(await stored(journal, topics())) == 10


class Reading:
    """Where readers start and what they select."""

    async def test_the_first_batch_tells_the_place_started_from(self, journal: Journal) -> None:
        await journal.append_updates(updates(*"abcde"))
        places = {
            Start(): 5,
            Start(all=True): 0,
            Start(last=2): 3,
            Start(last=9): 0,
            Start(last=0): 5,
            Start(after=Position(journal.epoch, 4)): 4,
        }
        for start, place in places.items():
            for follow in (False, True):
                async with aclosing(journal.read(topics(), start, follow=follow)) as batches:
                    batch = await anext(batches)
                assert (list(batch.items), batch.loss, batch.skipped) == ([], None, None)
                assert batch.position == Position(journal.epoch, place)

    async def test_a_reader_that_does_not_follow_ends(self, journal: Journal) -> None:
        assert await stored(journal, topics()) == []
        await journal.append_updates(updates(*"abc"))
        assert texts(await stored(journal, topics())) == ["a", "b", "c"]
        assert texts(await stored(journal, topics(), Start(last=1))) == ["c"]
        assert await stored(journal, topics(), Start()) == []
        after = Start(after=Position(journal.epoch, 1))
        assert texts(await stored(journal, topics(), after)) == ["b", "c"]

    async def test_new_means_from_the_call_on(self, journal: Journal) -> None:
        await journal.append_updates(updates("old"))
        async with aclosing(journal.read(topics(), Start(), follow=True)) as batches:
            await journal.append_updates(updates("new"))
            found: list[str] = []
            async for batch in batches:
                found += texts(list(batch.items))
                if found:
                    break
        assert found == ["new"]

    async def test_history_then_live(self, journal: Journal) -> None:
        await journal.append_updates(updates(*"abc"))
        async with following(journal, topics("t"), Start(last=2)) as live:
            await live.until(2)
            await journal.append_updates(updates("d", "e"))
            assert texts(await live.until(4)) == ["b", "c", "d", "e"]
            assert journal.subscribers(Stream.UPDATES) == 1
        assert journal.subscribers(Stream.UPDATES) == 0

    async def test_topics_and_their_patterns(self, journal: Journal) -> None:
        for topic in ("orders.eu", "orders.us", "orders.eu.new", "orders", "users.eu"):
            await journal.append_updates(updates(topic, topic=topic))
        wanted = {
            ("orders.eu",): ["orders.eu"],
            ("orders.*",): ["orders.eu", "orders.us"],
            ("orders.>",): ["orders.eu", "orders.us", "orders.eu.new"],
            ("*.eu",): ["orders.eu", "users.eu"],
            (">",): ["orders.eu", "orders.us", "orders.eu.new", "orders", "users.eu"],
            ("users.eu", "orders"): ["orders", "users.eu"],
            ("orders.eu", "orders.*"): ["orders.eu", "orders.us"],
            ("none", "no.*"): [],
        }
        for patterns, expected in wanted.items():
            assert texts(await stored(journal, topics(*patterns))) == expected, patterns
            async with following(journal, topics(*patterns), Start(all=True)) as live:
                assert texts(await live.until(len(expected))) == expected, patterns

    async def test_more_keys_than_can_be_merged(self, journal: Journal) -> None:
        names = [f"k{n}.{n % 3}" for n in range(400)]
        for topic in names * 2:
            await journal.append_updates(updates(topic, topic=topic))
        wanted = [name for name in names * 2 if name.endswith(".1")]
        assert texts(await stored(journal, topics("*.1"))) == wanted
        assert texts(await stored(journal, topics("*.1"), Start(last=5))) == wanted[-5:]
        many = tuple(names[:100])
        assert texts(await stored(journal, topics(*many))) == [n for n in names * 2 if n in many]
        one = Start(last=3)
        assert texts(await stored(journal, topics("k7.1"), one)) == ["k7.1", "k7.1"]

    async def test_levels_mean_and_above(self, journal: Journal) -> None:
        for service in ("api", "api-eu", "web"):
            for level in ("debug", "info", "warn", "error"):
                await journal.append_logs([log(f"{service} {level}", level, service)])
        read = {
            (("api",), 0): 4,
            (("api",), 2): 2,
            (("api*",), 3): 2,
            (("a*eu", "web"), 3): 2,
            ((), 3): 3,
            ((), 0): 12,
            (("none",), 0): 0,
        }
        for (services, rank), count in read.items():
            found = await stored(journal, logs(*services, level=rank))
            assert len(found) == count, (services, rank)
            assert all(entry.rank >= rank for entry in found)
            async with following(journal, logs(*services, level=rank), Start(all=True)) as live:
                await live.until(count)
            last = await stored(journal, logs(*services, level=rank), Start(last=1))
            assert [e.sequence for e in last] == [e.sequence for e in found[-1:]]
        assert texts(await stored(journal, logs("api", level=1), Start(last=2))) == [
            "api warn",
            "api error",
        ]

    async def test_since_a_time(self, journal: Journal, clock: Clock) -> None:
        times = []
        for n in range(12):
            times.append(clock.advance(0.4))
            await journal.append_updates(updates(str(n)))
        for n, time in enumerate(times):
            just_before = Start(since=time - timedelta(microseconds=1))
            assert texts(await stored(journal, topics(), Start(since=time)))[0] == str(n)
            assert texts(await stored(journal, topics(), just_before))[0] == str(n)
        assert await stored(journal, topics(), Start(since=clock.advance(1))) == []
        everything = await stored(journal, topics(), Start(since=BEGAN - timedelta(days=9)))
        assert len(everything) == 12

    async def test_positions_of_another_life_are_refused(self, journal: Journal) -> None:
        await journal.append_updates(updates("a"))
        for position in (Position("other", 1), Position("", 0), Position(journal.epoch, 2)):
            with pytest.raises(PreconditionError, match=r"epoch|ahead"):
                await stored(journal, topics(), Start(after=position))

    async def test_close_ends_readers_after_what_is_there(self, journal: Journal) -> None:
        async with following(journal, topics()) as live, following(journal, topics()) as other:
            await journal.append_updates(updates("a"))
            await journal.close()
            assert texts(await live.until(1)) == ["a"]
            for follower in (live, other):
                with pytest.raises(StopAsyncIteration):
                    while True:
                        await follower.next()


class Following:
    """Readers that keep up, and those that do not."""

    async def test_only_what_was_asked_for_wakes(self, journal: Journal) -> None:
        async with following(journal, topics("a.*")) as live:
            waiting = asyncio.ensure_future(live.next())
            for _ in range(5):
                await journal.append_updates(updates("x", topic="b"))
            assert not waiting.done()
            await journal.append_updates(updates("y", topic="a.b"))
            batch = await waiting
            assert texts(list(batch.items)) == ["y"]
            assert batch.position.sequence == 6

    async def test_a_heartbeat_carries_the_position(self, journal: Journal) -> None:
        async with following(journal, topics("a"), heartbeat=0.05) as live:
            await journal.append_updates(updates("x", "y", topic="b"))
            batch = await live.next()
            while batch.position.sequence < 2:
                batch = await live.next()
            assert (list(batch.items), batch.loss) == ([], None)
            assert batch.position == Position(journal.epoch, 2)
            resume = Start(after=batch.position)
        await journal.append_updates(updates("z", topic="a"))
        async with following(journal, topics("a"), resume) as live:
            assert texts(await live.until(1)) == ["z"]

    async def test_readers_of_the_same_share_their_bytes(self, journal: Journal) -> None:
        made: list[object] = []

        def frame(message: object) -> bytes:
            made.append(message)
            return b"frame"

        async with following(journal, topics("a")) as one, following(journal, topics("a")) as two:
            await journal.append_updates(updates("x", "y", topic="a"))
            first, second = await one.next(), await two.next()
            assert joined_frames(first, frame) == b"frameframe"
            assert joined_frames(second, frame) is joined_frames(first, frame)
            assert len(made) == 2

    async def test_a_reader_behind_memory_is_served_from_the_store(self, opener: Opener) -> None:
        async with (
            await opener(options=SMALL_RING) as journal,
            following(journal, topics("a")) as slow,
        ):
            for n in range(100):
                await journal.append_updates(updates(f"{n}", topic="a" if n % 2 else "b"))
            assert texts(await slow.until(50)) == [str(n) for n in range(1, 100, 2)]
            await journal.append_updates(updates("live", topic="a"))
            assert texts(await slow.until(51))[-1] == "live"

    @pytest.mark.parametrize("options", [JournalOptions(), SMALL_RING])
    async def test_latest_keeps_the_newest_of_each_key(
        self, opener: Opener, options: JournalOptions
    ) -> None:
        async with (
            await opener(options=options) as journal,
            following(journal, topics(), latest=True) as slow,
        ):
            for n in range(30):
                await journal.append_updates(updates(f"{n}", topic=f"k{n % 3}"))
            counts: dict[str, int] = {}
            while not slow.entries or slow.entries[-1].sequence < 30:
                batch = await slow.next()
                assert len({e.key for e in batch.items}) == len(batch.items)
                for key, count in (batch.skipped or {}).items():
                    counts[key] = counts.get(key, 0) + count
            assert texts(slow.entries)[-3:] == ["27", "28", "29"]
            assert len(slow.entries) + sum(counts.values()) == 30

    async def test_a_subscription_is_gone_when_its_task_is(self, journal: Journal) -> None:
        async def listen() -> None:
            async with aclosing(journal.read(topics(), Start(), follow=True)) as batches:
                async for _ in batches:
                    pass

        tasks = [asyncio.create_task(listen()) for _ in range(20)]
        while journal.subscribers(Stream.UPDATES) < 20:  # noqa: ASYNC110  # nothing tells it
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert journal.subscribers(Stream.UPDATES) == 0
