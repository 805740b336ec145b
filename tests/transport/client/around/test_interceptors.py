"""Interceptors of a channel are layers around its calls."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from streamkit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    StreamServiceStub,
    SubscribeRequest,
    Update,
)
from tests.transport.client.around.service import SUBSCRIBE, WATCH, Call, Next, Service, watch
from tests.transport.client.conftest import NewChannel, Target


async def test_interceptors_are_layers_around_all_kinds_of_calls(
    connect: NewChannel, target: Target
) -> None:
    seen: list[str] = []

    def layer(name: str) -> Any:
        async def interceptor(call: Call, call_next: Next) -> None:
            seen.append(f"{name} before {call.method.rpartition('/')[2]}")
            call.metadata["x-tag"] = f"{call.metadata.get('x-tag', '')}{name}"
            try:
                await call_next()
            finally:
                seen.append(f"{name} after {type(call.error).__name__}")

        return interceptor

    channel = connect(target, interceptors=[layer("a"), layer("b")])
    expected = ["a before WatchJobProgress", "b before WatchJobProgress"]
    expected += ["b after NoneType", "a after NoneType"]
    assert (await watch(channel)).status == "ab"
    assert seen == expected

    seen.clear()
    stub = StreamServiceStub(channel)
    assert [reply.status async for reply in stub.watch_job_progress(JobRequest())] == ["ab"]
    assert seen == expected

    seen.clear()
    async with channel.stream(WATCH, JobRequest, JobProgress) as call:
        assert seen == expected[:2]
        await call.send(JobRequest())
        await call.end()
        assert [reply.status async for reply in call] == ["ab"]
    assert seen == expected

    seen.clear()
    with pytest.raises(NotFoundError):
        await watch(channel, "unknown")
    assert seen[2:] == ["b after NotFoundError", "a after NotFoundError"]


async def test_an_interceptor_may_translate_and_refuse(connect: NewChannel, target: Target) -> None:
    async def translate(call: Call, call_next: Next) -> None:
        try:
            await call_next()
        except NotFoundError as error:
            raise InvalidArgumentError("wrong job") from error

    async def refuse(call: Call, call_next: Next) -> None:
        raise PreconditionError("not today")

    async def forget(call: Call, call_next: Next) -> None:
        return None

    async def swallow(call: Call, call_next: Next) -> None:
        try:
            await call_next()
        except NotFoundError:
            return

    async def twice(call: Call, call_next: Next) -> None:
        await call_next()
        await call_next()

    for interceptor, kind, words in (
        (translate, InvalidArgumentError, "wrong job"),
        (refuse, PreconditionError, "not today"),
        (forget, PreconditionError, "did not make the call"),
        (swallow, NotFoundError, "no such job"),
    ):
        channel = connect(target, interceptors=[interceptor])
        with pytest.raises(kind, match=words):
            await watch(channel, "unknown")
    with pytest.raises(PreconditionError, match="once"):
        await watch(connect(target, interceptors=[twice]))


async def test_an_interceptor_shares_context_and_cancellation(
    connect: NewChannel, target: Target, service: Service
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    ends: list[str] = []

    async def interceptor(call: Call, call_next: Next) -> None:
        variable.set("set")
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5):
                await call_next()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    channel = connect(target, interceptors=[interceptor])

    async def listen_for_ever() -> None:
        async with channel.stream(
            SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
        ) as call:
            assert variable.get() == "set"
            while await call.receive():
                continue

    task = asyncio.create_task(listen_for_ever())
    while not service.running:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ends == ["cancelled"]
    while service.running:
        await asyncio.sleep(0.001)


async def test_a_timeout_of_an_interceptor_ends_the_call(
    connect: NewChannel, target: Target
) -> None:
    async def hasty(call: Call, call_next: Next) -> None:
        async with asyncio.timeout(0.05):
            await call_next()

    channel = connect(target, interceptors=[hasty])
    with pytest.raises(TimeoutError):
        async with channel.stream(
            SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
        ) as call:
            async for _ in call:
                continue
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
