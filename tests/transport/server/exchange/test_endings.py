"""How a call ends: by its caller, its deadline, its channel, its server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamkit.codec import StreamkitCodec
from streamkit.errors import AuthError, CallCancelledError, ConnectError, DeadlineError, Status
from streamkit.testing import InProcess
from streamkit.transport import Channel, Context
from streamkit.transport.server.outcome import Outcome
from tests.transport.server.exchange.calls import (
    Serve,
    fails,
    metadata_of,
    over,
    publish,
    subscribe,
)
from tests.transport.services import Streams, Writes


async def test_a_caller_that_leaves_ends_the_handler(serve: Serve) -> None:
    streams = Streams()
    seen: list[bool] = []
    outcomes: list[Outcome | None] = []

    async def watch(ctx: Context, call_next: Any) -> None:
        ctx.when_done(lambda ctx: outcomes.append(ctx.outcome))
        try:
            await call_next(ctx)
        finally:
            seen.append(ctx.cancelled)

    async with serve([streams], interceptors=[watch]) as channel:
        for topic in ("idle:x", "flood"):
            streams.closed.clear()
            async with subscribe(channel, topic) as call:
                await anext(call)
            async with asyncio.timeout(5):
                while not streams.closed or len(outcomes) < len(seen):
                    await asyncio.sleep(0.001)
    assert seen == [True, True]
    assert [outcome and outcome.status for outcome in outcomes] == [Status.CANCELLED] * 2


async def test_a_deadline_ends_the_handler(serve: Serve) -> None:
    streams = Streams()
    async with serve([streams]) as channel:
        for number, topic in enumerate(("idle:x", "flood")):
            while streams.started <= number:  # a busy machine may be over it before the handler is
                assert isinstance(await fails(channel, topic, timeout=0.05), DeadlineError)
        while len(streams.closed) < streams.started:
            await asyncio.sleep(0.001)


async def test_a_call_is_ended_from_outside(serve: Serve) -> None:
    running: list[Context] = []

    async def note(ctx: Context, call_next: Any) -> None:
        running.append(ctx)
        await call_next(ctx)

    streams = Streams()
    async with serve([streams], interceptors=[note]) as channel:
        async with subscribe(channel, "idle:x") as call:
            await anext(call)
            running[0].end(AuthError("not any more"))
            with pytest.raises(AuthError, match="not any more"):
                await anext(call)
        await over(running[0])
        assert len(streams.closed) == 1
        assert running[0].outcome is not None
        assert running[0].outcome.status is Status.PERMISSION_DENIED
        running[0].end(AuthError("once more"))  # nothing happens to a call that is over


async def test_a_closed_channel_ends_its_calls(serve: Serve) -> None:
    streams = Streams()
    async with serve([streams]) as channel, subscribe(channel, "idle:x") as call:
        await anext(call)
        await channel.aclose()
        with pytest.raises(ConnectError, match="channel is closed"):
            await anext(call)
        while not streams.closed:
            await asyncio.sleep(0.001)
        with pytest.raises(ConnectError):
            await publish(channel)


async def test_a_server_that_goes_away_says_so() -> None:
    carrier = InProcess([Streams(), Writes()])
    async with Channel("in-process", codec=StreamkitCodec(), carrier=carrier) as channel:
        async with subscribe(channel, "idle:x") as call:
            await anext(call)
            carrier.drain()
            with pytest.raises(ConnectError, match="going away"):
                await anext(call)
            assert metadata_of(call)["streamkit-reconnect"] == "1"
        async with subscribe(channel, "idle:x") as call:
            await anext(call)
            carrier.reset("cut")
            with pytest.raises(ConnectError, match="cut"):
                await anext(call)


async def test_a_cancelled_call_of_a_client_is_cancelled(serve: Serve) -> None:
    async with serve([Streams()]) as channel, subscribe(channel, "idle:x") as call:
        await anext(call)
        call.cancel()
        with pytest.raises(CallCancelledError):
            await anext(call)
