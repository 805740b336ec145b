"""Large unary requests: no more of them are taken in at once than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hyperframe.frame import WindowUpdateFrame

from streamkit.config import TransportLimits
from streamkit.errors import DeadlineError, LimitError
from streamkit.generated.streamservice import (
    ProducerServiceBase,
    PublishRequest,
    Update,
    WriteReply,
)
from streamkit.transport import Channel, GrpcServer
from tests.transport.raw import PUBLISH, RawClient, message

MIB = 1 << 20
PATIENCE = 10.0


class Holding(ProducerServiceBase):
    """Counts the requests that it has, and answers when it may."""

    def __init__(self) -> None:
        self.here = 0
        self.most = 0
        self.may = asyncio.Event()
        self.changed = asyncio.Condition()

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        self.here += 1
        self.most = max(self.most, self.here)
        async with self.changed:
            self.changed.notify_all()
        await self.may.wait()
        self.here -= 1
        return WriteReply(producer_sequence=len(publish_request.updates[0].message))

    async def until(self, here: int) -> None:
        async with self.changed, asyncio.timeout(PATIENCE):
            await self.changed.wait_for(lambda: self.here == here)


def request(size: int) -> PublishRequest:
    return PublishRequest(updates=[Update(topic="t", message="x" * size)])


@pytest.fixture
def holding() -> Holding:
    return Holding()


@pytest.fixture
async def server(holding: Holding) -> AsyncIterator[GrpcServer]:
    limits = TransportLimits(large_requests=4 * MIB, stall_timeout=PATIENCE)
    server = GrpcServer([holding], limits=limits)
    await server.start("127.0.0.1", 0)
    yield server
    await server.close()


async def publish(channel: Channel, size: int, timeout: float | None = None) -> int:
    reply: WriteReply = await channel.unary(PUBLISH, request(size), WriteReply, timeout=timeout)
    return int(reply.producer_sequence)


@pytest.mark.parametrize("size", [900_000, 3 * MIB // 2], ids=["in a window", "beyond it"])
async def test_more_of_them_wait_and_small_ones_do_not(
    holding: Holding, server: GrpcServer, size: int
) -> None:
    fit = 4 * MIB // size
    async with Channel(server.addresses[0]) as channel, asyncio.TaskGroup() as group:
        calls = [group.create_task(publish(channel, size)) for _ in range(3 * fit)]
        await holding.until(fit)
        small = group.create_task(publish(channel, 10))
        await holding.until(fit + 1)
        holding.may.set()
        assert await asyncio.gather(*calls, small) == [size] * 3 * fit + [10]
    assert holding.most == fit + 1


async def test_who_waits_may_leave_and_takes_no_room(holding: Holding, server: GrpcServer) -> None:
    async with Channel(server.addresses[0]) as channel:
        first = asyncio.create_task(publish(channel, 3 * MIB))
        await holding.until(1)
        with pytest.raises(DeadlineError):
            await publish(channel, 3 * MIB, timeout=0.3)
        holding.may.set()
        assert await first == 3 * MIB
        assert await publish(channel, 3 * MIB) == 3 * MIB


async def test_what_is_only_begun_is_not_taken_in(holding: Holding, server: GrpcServer) -> None:
    """Ten that announce 4 MiB and send a part: all but one get no more than their window."""
    async with RawClient() as client:
        await client.connect(server.addresses[0])
        data = message(bytes(request(4 * MIB - 100)))
        for _ in range(10):
            head = client.headers(client.fields(PUBLISH))
            client.send(head, client.data(head.stream_id, data[: MIB - 1], end=False))
        assert await client.pong()
        assert await client.pong()
        updated = {f.stream_id for f in client.frames if isinstance(f, WindowUpdateFrame)}
        assert len(updated - {0}) == 1


async def test_waiting_has_an_end(holding: Holding) -> None:
    server = GrpcServer([holding], limits=TransportLimits(large_requests=MIB, stall_timeout=0.2))
    await server.start("127.0.0.1", 0)
    async with Channel(server.addresses[0]) as channel:
        first = asyncio.create_task(publish(channel, MIB))
        await holding.until(1)
        with pytest.raises(LimitError, match="too much is being sent to this server at once"):
            await publish(channel, MIB)
        holding.may.set()
        assert await first == MIB
    await server.close()
