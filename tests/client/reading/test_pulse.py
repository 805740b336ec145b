"""What a stream learns of the pulse that keeps it alive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamkit.client.reading.pulse import Pulse
from streamkit.client.reading.streams import Setting, subscription
from streamkit.errors import InternalError
from streamkit.generated.streamservice import SubscribeRequest, Update
from tests.client.fakes import HOLD, FakeChannel
from tests.client.reading.scripted import META, Log


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
