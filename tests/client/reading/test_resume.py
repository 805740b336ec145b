"""The resuming call against a scripted channel: no network, no real waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streamkit.errors import ConnectError, InvalidArgumentError, PreconditionError
from streamkit.generated.streamservice import StartFrom, SubscribeRequest, Update
from tests.client.fakes import HOLD, FakeChannel
from tests.client.reading.scripted import META, Line, Log, cursor, journal_call, numbers


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
