"""Deadlines travel, and are handed on to the calls that a handler makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import DeadlineError, InvalidArgumentError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    StreamServiceStub,
    SubscribeRequest,
    Update,
)
from streamkit.testing import InProcess
from streamkit.transport import Channel, ClientCall
from tests.transport.client.around.service import LOGS, SUBSCRIBE, Call, Service, watch
from tests.transport.client.conftest import NewChannel, Target


async def test_a_handlers_deadline_holds_for_the_calls_that_it_makes(
    connect: NewChannel, target: Target, service: Service
) -> None:
    service.downstream = channel = connect(target)

    async def left(own: str = "", **settings: Any) -> str:
        reply = await channel.unary(LOGS, LogRequest(service_name=own), LogEntry, **settings)
        return reply.message

    assert await left() == "none"
    assert 3 < float(await left(timeout=5)) <= 5
    assert 3 < float(await left("60", timeout=5)) <= 5
    assert 0.5 < float(await left("1", timeout=5)) <= 1


async def test_a_deadline_travels(connect: NewChannel, target: Target) -> None:
    channel = connect(target)
    for timeout in (0.5, 5.0, 50_000.0, 3e9):
        reply = await channel.unary(LOGS, LogRequest(lines=1), LogEntry, timeout=timeout)
        assert 0.5 * timeout < float(reply.message) <= timeout


async def test_an_ended_call_binds_nobody(
    connect: NewChannel, target: Target, service: Service
) -> None:
    """What a handler starts and leaves behind goes on after its deadline, in each way."""
    channel = connect(target)
    left: list[Any] = []

    class Starting(Service):
        async def tail_logs(self, request: LogRequest) -> AsyncIterator[LogEntry]:
            async def feed() -> int:
                async with channel.stream(
                    SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
                ) as call:
                    left.append(call)
                    count = 0
                    async for _ in call:
                        count += 1
                        if asyncio.get_running_loop().time() > started + 0.6:
                            break
                    return count

            async def later() -> JobProgress:
                await asyncio.sleep(0.4)
                return await watch(channel)

            left.extend([asyncio.create_task(feed()), asyncio.create_task(later())])
            call = channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest())
            await call.open()
            left.append(call)
            yield LogEntry(message="done")

    front = InProcess([Starting()])
    async with Channel("front", codec=StreamkitCodec(), carrier=front) as caller:
        started = asyncio.get_running_loop().time()
        await caller.unary(LOGS, LogRequest(), LogEntry, timeout=0.3)
        feed, later, call, *_ = left
        assert await feed > 0
        assert (await later).job_id == "j"
        assert isinstance(call, ClientCall)


async def test_an_inherited_deadline_ends_with_the_call_that_set_it(
    connect: NewChannel, target: Target
) -> None:
    """A call that was made in the handler's own task and outlives it here; what its server was told
    at the beginning cannot be taken back."""
    channel = connect(target)
    kept: list[Call] = []

    class Keeping(Service):
        async def tail_logs(self, request: LogRequest) -> AsyncIterator[LogEntry]:
            call = channel.stream(SUBSCRIBE, SubscribeRequest, Update, timeout=50)
            await call.open()
            kept.append(call)
            yield LogEntry(message="done")

    front = InProcess([Keeping()])
    async with Channel("front", codec=StreamkitCodec(), carrier=front) as caller:
        await caller.unary(LOGS, LogRequest(), LogEntry, timeout=5)
        while front.calls:
            await asyncio.sleep(0.001)
        (call,) = kept
        assert call.deadline is not None
        before = call.deadline
        call._expire()
        assert call.error is None
        assert call.deadline > before + 40
        await call.leave()


async def test_times_that_are_no_times(connect: NewChannel, target: Target) -> None:
    """The first call on a channel as well as later ones, and one that waits beside them."""
    channel = connect(target)
    beside = asyncio.create_task(watch(channel, timeout=30))
    assert (await watch(channel, timeout=float("inf"))).job_id == "j"
    assert (await beside).job_id == "j"
    for bad in (float("nan"), "soon"):
        with pytest.raises(InvalidArgumentError, match="number of seconds"):
            await watch(channel, timeout=bad)
    for late in (0, -1, float("-inf")):
        with pytest.raises(DeadlineError):
            await watch(channel, timeout=late)
    assert (await watch(channel, timeout=1e300)).job_id == "j"
    stub = StreamServiceStub(channel, timeout=float("inf"))
    assert [reply.job_id async for reply in stub.watch_job_progress(JobRequest(job_id="j"))]
    with pytest.raises(InvalidArgumentError, match="stall_timeout"):
        TransportLimits(stall_timeout=float("nan"))
    for name in ("connect_timeout", "keepalive"):
        with pytest.raises(InvalidArgumentError, match=name):
            connect(target, **{name: float("nan")})
        assert (await watch(connect(target, **{name: float("inf")}))).job_id == "j"
