"""The health service: one answer a service, pushed when it changes."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.codec import StreamkitCodec
from streamkit.errors import ConnectError, NotFoundError
from streamkit.generated.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
    HealthListRequest,
    HealthListResponse,
)
from streamkit.handlers import HealthHandler
from streamkit.server import Server
from streamkit.transport import Channel
from tests.handlers.calls import take

PATH = "/grpc.health.v1.Health/"
SERVICE = "streamservice.StreamService"
Serving = HealthCheckResponseServingStatus


async def check(channel: Channel, service: str) -> int:
    request = HealthCheckRequest(service=service)
    return (await channel.unary(PATH + "Check", request, HealthCheckResponse)).status


async def test_check(channel: Channel, health: HealthHandler) -> None:
    assert await check(channel, "") == Serving.SERVING
    assert await check(channel, SERVICE) == Serving.SERVING
    with pytest.raises(NotFoundError):
        await check(channel, "other.Service")
    health.set_serving(False)
    assert await check(channel, "") == Serving.NOT_SERVING
    assert await check(channel, SERVICE) == Serving.NOT_SERVING


async def test_list(channel: Channel, health: HealthHandler) -> None:
    health.set_serving(False, SERVICE)
    reply = await channel.unary(PATH + "List", HealthListRequest(), HealthListResponse)
    assert {name: answer.status for name, answer in reply.statuses.items()} == {
        "": Serving.SERVING,
        SERVICE: Serving.NOT_SERVING,
    }


async def test_watch(channel: Channel, health: HealthHandler) -> None:
    request = HealthCheckRequest(service="late.Service")
    async with channel.stream(
        PATH + "Watch", HealthCheckRequest, HealthCheckResponse, request=request
    ) as call:
        assert [a.status for a in await take(call, 1)] == [Serving.SERVICE_UNKNOWN]
        health.set_serving(True, "late.Service")
        assert [a.status for a in await take(call, 1)] == [Serving.SERVING]
        health.set_serving(True, "another.Service")
        health.set_serving(False)
        assert [a.status for a in await take(call, 1)] == [Serving.NOT_SERVING]


async def test_watchers_learn_that_the_server_leaves() -> None:
    async with Server(port=0) as server:
        channel = Channel(server.address, codec=StreamkitCodec())
        request = HealthCheckRequest()
        async with channel.stream(
            PATH + "Watch", HealthCheckRequest, HealthCheckResponse, request=request
        ) as call:
            assert [a.status for a in await take(call, 1)] == [Serving.SERVING]
            stopping = asyncio.create_task(server.stop(grace=20))
            assert [a.status for a in await take(call, 1)] == [Serving.NOT_SERVING]
            async with asyncio.timeout(5):
                with pytest.raises(ConnectError):
                    await call.receive()
        await channel.aclose()
        async with asyncio.timeout(5):
            await stopping
