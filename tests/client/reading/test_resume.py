"""The resuming call against a scripted channel: no network, no real waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streamkit.client.attempts import Reconnect
from streamkit.client.events import ClientEvent
from streamkit.client.reading.cursor import JournalCursor, KeyCursor
from streamkit.client.reading.pulse import Pulse
from streamkit.client.reading.resume import ResumingCall
from streamkit.client.reading.start import start_from
from streamkit.client.reading.streams import Setting, subscription
from streamkit.client.retry import Retry
from streamkit.config import Backoff
from streamkit.errors import (
    ConnectError,
    InternalError,
    InvalidArgumentError,
    PreconditionError,
    StreamGapError,
    StreamkitError,
)
from streamkit.generated.streamservice import (
    Control,
    Gap,
    Heartbeat,
    Position,
    StartFrom,
    SubscribeRequest,
    Update,
)
from tests.client.fakes import HOLD, FakeChannel

META = {"streamkit-epoch": "e1", "streamkit-position": "0"}


class Line:
    """A message of a foreign service: no streamkit fields at all."""

    def __init__(self, number: int | None) -> None:
        self.number = number


class Log:
    """What a fake server holds and how it breaks: after so many messages of each attempt."""

    def __init__(self, count: int, cuts: list[int], overlap: int = 0) -> None:
        self.count, self.cuts, self.overlap = count, cuts, overlap
        self.delays: list[float] = []
        self.events: list[ClientEvent] = []

    async def play(self, path: str, request: Any) -> AsyncIterator[Any]:
        cut = self.cuts.pop(0) if self.cuts else self.count + 1
        numbers = range(max(1, request + 1 - self.overlap), self.count + 1)
        for sent, number in enumerate(numbers):
            if sent == cut:
                raise ConnectError("cut")
            yield [Line(number)]

    async def sleep(self, delay: float) -> None:
        self.delays.append(delay)

    def reconnect(self, **changes: Any) -> Reconnect:
        return Reconnect(
            lambda: Retry(Backoff(jitter=0.0), chance=lambda: 0.5),
            on_event=self.events.append,
            sleep=self.sleep,
            **changes,
        )

    def call(self, channel: FakeChannel, **changes: Any) -> ResumingCall[Any, Any]:
        return ResumingCall(
            channel,  # type: ignore[arg-type]  # the fake has the methods that are used
            "/shop.Orders/Watch",
            int,
            Line,
            request_from=lambda place: place or 0,
            position_of=lambda line: line.number,
            reconnect=self.reconnect(**changes),
        )


async def test_a_broken_stream_goes_on_after_the_last_record() -> None:
    log = Log(10, cuts=[3, 4])
    channel = FakeChannel(log.play)
    async with log.call(channel) as lines:
        assert [line.number async for line in lines] == list(range(1, 11))
    assert channel.requests == [0, 3, 7]
    assert log.delays == [1.0, 1.0], "progress between the two breaks started the delays anew"
    assert [event.kind for event in log.events] == [
        *("connected", "lost", "reconnecting"),
        *("resumed", "lost", "reconnecting"),
        "resumed",
    ]


async def test_what_comes_twice_is_given_once() -> None:
    log = Log(10, cuts=[5, 5], overlap=2)
    async with log.call(FakeChannel(log.play)) as lines:
        assert [line.number async for line in lines] == list(range(1, 11))


async def test_connecting_alone_does_not_start_the_delays_anew() -> None:
    log = Log(4, cuts=[2, 0, 0, 0])
    async with log.call(FakeChannel(log.play)) as lines:
        assert [line.number async for line in lines] == [1, 2, 3, 4]
    assert log.delays == pytest.approx([1.0, 1.6, 2.56, 4.096])


async def test_a_server_that_never_was_there_is_not_waited_for() -> None:
    log = Log(4, cuts=[0])
    with pytest.raises(ConnectError):
        async with log.call(FakeChannel(log.play)) as lines:
            await lines.receive()
    assert log.delays == []


async def test_unless_the_caller_is_patient() -> None:
    log = Log(2, cuts=[0, 0])
    async with log.call(FakeChannel(log.play), patient=True) as lines:
        assert [line.number async for line in lines] == [1, 2]


async def test_reconnect_off_hands_the_break_to_the_user() -> None:
    log = Log(4, cuts=[2])
    got = []
    with pytest.raises(ConnectError):
        async with log.call(FakeChannel(log.play), enabled=False) as lines:
            async for line in lines:
                got.append(line.number)  # noqa: PERF401  # kept when the loop ends by an error
    assert got == [1, 2]


async def test_a_lasting_error_is_raised_after_what_was_delivered() -> None:
    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        yield [Line(1), Line(2)]
        raise InvalidArgumentError("topics: empty")

    log = Log(0, [])
    got = []
    with pytest.raises(InvalidArgumentError):
        async with log.call(FakeChannel(play)) as lines:
            async for line in lines:
                got.append(line.number)  # noqa: PERF401  # kept when the loop ends by an error
    assert got == [1, 2]


async def test_push_back_is_obeyed() -> None:
    attempts = 0

    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            yield [Line(2)]
            return
        yield [Line(1)]
        error = ConnectError("busy")
        error.trailers = {"grpc-retry-pushback-ms": "7000"}  # type: ignore[attr-defined]  # as the transport sets it
        raise error

    log = Log(0, [])
    async with log.call(FakeChannel(play)) as lines:
        assert [line.number async for line in lines] == [1, 2]
    assert log.delays == [7.0]


async def test_leaving_the_loop_ends_the_call_at_once() -> None:
    log = Log(10, cuts=[])
    channel = FakeChannel(log.play)
    async for line in log.call(channel):
        assert channel.open_calls
        if line.number == 2:
            break
    await asyncio.sleep(0)  # the generator's own finaliser is a task of the loop
    await asyncio.sleep(0)
    assert not channel.open_calls


async def test_inside_its_context_iteration_can_go_on_after_a_break() -> None:
    log = Log(10, cuts=[])
    channel = FakeChannel(log.play)
    async with log.call(channel) as lines:
        first = await anext(aiter(lines))
        rest = [line.number async for line in lines]
    assert [first.number, *rest] == list(range(1, 11))
    assert not channel.open_calls


async def hold(path: str, request: Any) -> AsyncIterator[Any]:
    yield [Line(1)]
    yield HOLD


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("moment", ["receiving", "waiting"])
async def test_cancelling_the_task_ends_the_call_and_leaves_the_task_clean(moment: str) -> None:
    left: list[int] = []
    channel = FakeChannel(hold)

    async def read() -> None:
        log = Log(2, cuts=[1])
        if moment == "waiting":
            nonlocal channel
            channel = FakeChannel(log.play)
        call = log.call(channel)
        if moment == "waiting":
            call._reconnect.sleep = lambda delay: asyncio.Event().wait()
        try:
            async with call as lines:
                async for _ in lines:
                    started.set()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            left.append(task.cancelling())
            raise

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [0]
    assert not channel.open_calls


async def test_a_silent_stream_is_taken_for_dead() -> None:
    attempts = 0

    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        nonlocal attempts
        attempts += 1
        yield [Line(attempts)]
        if attempts == 1:
            yield HOLD

    log = Log(0, [])
    channel = FakeChannel(play)
    call = log.call(channel)
    call._idle_timeout = 0.05
    async with call as lines:
        assert [line.number async for line in lines] == [1, 2]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert channel.resets == 1, "the connection under a silent stream is given up"
    assert isinstance(log.events[1].error, ConnectError)


async def test_a_cancellation_swallowed_below_still_wins() -> None:
    """The moment of a lost connection must not eat the user's cancellation."""

    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        yield [Line(1)]
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectError("connection lost") from None

    log = Log(0, [])
    channel = FakeChannel(play)
    started = asyncio.Event()

    async def read() -> None:
        async with log.call(channel) as lines:
            async for _ in lines:
                started.set()

    task = asyncio.create_task(read())
    await started.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(channel.requests) == 1


# ---- the journal's own streams ----


def cursor(**changes: Any) -> JournalCursor[SubscribeRequest, Update]:
    options = {"endless": True, **changes}
    return JournalCursor(
        lambda start: SubscribeRequest(["a"], start=start),  # type: ignore[arg-type]  # None: new
        None,
        **options,
    )


def journal_call(
    channel: FakeChannel, place: JournalCursor[SubscribeRequest, Update], log: Log
) -> ResumingCall[SubscribeRequest, Update]:
    return ResumingCall(
        channel,  # type: ignore[arg-type]  # the fake has the methods that are used
        "/streamservice.StreamService/SubscribeToUpdates",
        SubscribeRequest,
        Update,
        cursor=place,
        reconnect=log.reconnect(),
        confirm=True,
    )


def heartbeat(sequence: int) -> Update:
    position = Position(epoch="e1", sequence=sequence)
    return Update(control=Control(heartbeat=Heartbeat(position=position)))


def gap(first: int, last: int) -> Update:
    return Update(control=Control(gap=Gap(first, last, "retention")))


def numbers(updates: list[Update]) -> list[int]:
    return [update.sequence for update in updates]


def test_a_new_stream_resumes_from_where_the_server_started_it() -> None:
    """Broken before the first record: what was published meanwhile must still come."""
    place = cursor()
    assert place.request().start is None, "the stream's own default"
    place.opened({"streamkit-epoch": "e1", "streamkit-position": "41"})
    assert place.request().start.after == Position("e1", 41)


def test_heartbeats_move_the_position_and_are_not_delivered() -> None:
    place = cursor()
    place.opened(META)
    assert numbers(place.take([Update(sequence=3), heartbeat(9)])) == [3]
    assert place.position == ("e1", 9)


def test_duplicates_are_dropped() -> None:
    place = cursor()
    place.opened(META)
    assert numbers(place.take([Update(sequence=1), Update(sequence=2)])) == [1, 2]
    assert numbers(place.take([Update(sequence=2), Update(sequence=3)])) == [3]


def test_a_gap_is_told_and_the_stream_goes_on() -> None:
    told: list[Gap] = []
    place = cursor(on_loss=told.append)
    place.opened(META)
    assert numbers(place.take([Update(sequence=1), gap(2, 7), Update(sequence=8)])) == [1, 8]
    assert [(loss.first, loss.last) for loss in told] == [(2, 7)]


def test_a_gap_without_a_listener_is_an_error() -> None:
    place = cursor()
    place.opened(META)
    with pytest.raises(StreamGapError):
        place.take([gap(1, 7)])


def test_a_server_that_resumes_further_on_has_lost_something() -> None:
    told: list[Gap] = []
    place = cursor(on_loss=told.append)
    place.opened(META)
    place.take([Update(sequence=5)])
    place.opened({"streamkit-epoch": "e1", "streamkit-position": "9"})
    assert [(loss.first, loss.last) for loss in told] == [(6, 9)]
    assert place.request().start.after.sequence == 9


def test_a_plain_server_without_sequences_still_delivers() -> None:
    place = cursor()
    place.opened({})
    assert len(place.take([Update(topic="a"), Update(topic="a")])) == 2


async def test_entering_the_context_waits_for_the_server() -> None:
    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        yield {"streamkit-epoch": "e1", "streamkit-position": "4"}
        yield HOLD

    place = cursor()
    async with journal_call(FakeChannel(play), place, Log(0, [])):
        assert place.position == ("e1", 4)


async def test_an_endless_stream_that_ends_well_is_a_break() -> None:
    starts: list[StartFrom] = []

    async def play(path: str, request: SubscribeRequest) -> AsyncIterator[Any]:
        starts.append(request.start)
        done = len(starts)
        yield {"streamkit-epoch": "e1", "streamkit-position": str(done - 1)}
        yield [Update(sequence=done)]

    async with journal_call(FakeChannel(play), cursor(), Log(0, [])) as updates:
        assert numbers([await anext(aiter(updates)) for _ in range(3)]) == [1, 2, 3]
    assert [start.after.sequence for start in starts[1:]] == [1, 2]


async def test_another_journals_position_is_final() -> None:
    async def play(path: str, request: SubscribeRequest) -> AsyncIterator[Any]:
        raise PreconditionError("the position is of another journal")
        yield

    with pytest.raises(PreconditionError):
        async with journal_call(FakeChannel(play), cursor(), Log(0, [])):
            pass


def test_starts_have_a_wire_form() -> None:
    assert start_from(None) is None
    assert start_from("new") == StartFrom(new=True)
    assert start_from("all") == StartFrom(all=True)
    with pytest.raises(StreamkitError):
        start_from("yesterday")  # type: ignore[arg-type]  # the point of the test


# ---- places of streams that are not ours ----


def places(*taken: Any, position: Any = None) -> tuple[KeyCursor[Any, Any], list[Any]]:
    """A cursor whose messages are places; what it handed on, attempt by attempt."""
    key: KeyCursor[Any, Any] = KeyCursor(lambda place: place, lambda place: place)
    key.position = position
    got = []
    for attempt in taken:
        key.request()
        got.append(key.take(list(attempt)))
    return key, got


def test_a_new_life_is_delivered_however_it_is_called() -> None:
    for first, second in (("a", "b"), ("b", "a"), (b"b", b"a")):
        new = [(second, 1), (second, 2)]
        _, got = places([(first, 4), (first, 5)], new)
        assert got[1] == new


def test_an_old_life_that_is_repeated_is_known() -> None:
    _, got = places(
        [("b", 1), ("b", 2)], [("b", 2), ("a", 1)], [("b", 1), ("b", 2), ("a", 1), ("a", 2)]
    )
    assert got[1:] == [[("a", 1)], [("a", 2)]]


def test_ordered_pairs_are_no_lives() -> None:
    _, got = places([(1, 8), (2, 1)], [(1, 9), (2, 1), (2, 2)])
    assert got[1] == [(2, 2)]


def test_messages_that_share_a_place_are_all_delivered() -> None:
    _, got = places([1, 1, 2, 2, 2])
    assert got == [[1, 1, 2, 2, 2]]


def test_a_break_among_messages_of_one_place_loses_none_of_them() -> None:
    key, _ = places([1, 1, 2, 2])
    assert key.request() == 1, "the last place of which nothing more can come"
    assert key.take([2, 2, 2, 3]) == [2, 3]
    assert key.request() == 2
    assert key.take([3, 4]) == [4]


def test_within_an_attempt_the_servers_order_is_the_right_one() -> None:
    _, got = places([5, 3, 4])
    assert got == [[5, 3, 4]]


def test_a_server_that_goes_on_in_another_life_is_an_error() -> None:
    place = cursor()
    place.opened(META)
    place.take([Update(sequence=5)])
    with pytest.raises(PreconditionError, match="another life"):
        place.opened({"streamkit-epoch": "e2", "streamkit-position": "5"})


# ---- heartbeats ----


def test_a_stream_cut_while_it_was_quiet_asks_for_a_quicker_pulse() -> None:
    pulse = Pulse(15.0)
    pulse.cut("reset INTERNAL_ERROR", 6.0)
    assert pulse.interval == 2.0
    pulse.cut("unfinished", 9.0)
    assert pulse.interval == 2.0, "never slower again"


def test_other_ends_teach_nothing() -> None:
    pulse = Pulse(15.0)
    for ending, quiet in (("status", 6.0), ("", 6.0), ("reset CANCEL", 0.3), ("lost", 6.0)):
        pulse.cut(ending, quiet)
    assert pulse.interval == 15.0
    pulse.cut("lost", 12.0)
    assert pulse.interval == 15.0, "two losses, two silences: no limit of a proxy"
    pulse.cut("lost", 12.5)
    assert pulse.interval == pytest.approx(12.5 / 3)


def test_the_pulse_has_a_bound() -> None:
    pulse = Pulse(15.0)
    pulse.cut("reset NO_ERROR", 1.0)
    assert pulse.interval == 0.5


async def test_what_one_stream_learned_the_next_request_asks_for() -> None:
    asked: list[float] = []

    async def play(path: str, request: SubscribeRequest) -> AsyncIterator[Any]:
        asked.append(request.options.heartbeat.total_seconds())
        yield META
        yield [Update(sequence=len(asked))]
        if len(asked) == 1:
            stream._heard -= 6.0  # it has been quiet for so long
            error = InternalError("the server reset the stream: INTERNAL_ERROR")
            error.ending = "reset INTERNAL_ERROR"
            raise error
        yield HOLD

    channel: Any = FakeChannel(play)
    setting = Setting(channel, Log(0, []).reconnect(), 45.0, None, Pulse(15.0))
    stream = subscription(setting, ["a"], "me", start=None, latest=False, on_loss=None)
    async with stream:
        assert [update.sequence for update in await stream.receive()] == [1]
        assert [update.sequence for update in await stream.receive()] == [2]
    assert asked == [15.0, pytest.approx(2.0, rel=0.01)]


# ---- rules that are easily lost ----


def test_an_older_heartbeat_moves_nothing_back() -> None:
    place = cursor()
    place.opened(META)
    assert numbers(place.take([Update(sequence=7), heartbeat(3), Update(sequence=7)])) == [7]
    assert place.position == ("e1", 7)
    assert place.request().start.after.sequence == 7


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    attempts = 0

    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            yield HOLD
        yield META
        yield HOLD

    log = Log(0, [])
    call = journal_call(FakeChannel(play), cursor(), log)
    call._attempts._patient = True
    call._reconnect.open_timeout = 0.02
    async with asyncio.timeout(5), call:
        assert attempts == 2
    assert [str(event.error) for event in log.events if event.error] == ["no answer within 0.02 s"]
