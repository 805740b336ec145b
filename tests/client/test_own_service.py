"""The resuming call on a service that is not one of ours: the example of the documentation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from betterproto.grpc.grpclib_server import ServiceBase
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from streamkit import ResumingCall
from streamkit.client import Reconnect, Retry
from streamkit.codec import StreamkitCodec
from streamkit.config import Backoff
from streamkit.generated.streamservice import Position, Update
from streamkit.server import Server
from streamkit.testing import FaultProxy
from streamkit.transport import Channel

PATH = "/shop.Orders/Watch"
ORDERS = 500


class Orders(ServiceBase):
    """Streams numbered orders. Knows nothing of streamkit; its request says where to go on."""

    async def watch(self, after: int) -> AsyncIterator[Update]:
        for number in range(after + 1, ORDERS + 1):
            yield Update(topic=str(number), message="order " + "x" * 100)
            await asyncio.sleep(0)

    async def _watch(self, stream: Stream[Position, Update]) -> None:
        request = await stream.recv_message()
        assert request is not None
        async for order in self.watch(request.sequence):
            await stream.send_message(order)

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self._watch, Cardinality.UNARY_STREAM, Position, Update)}


async def test_any_numbered_stream_survives_its_connection() -> None:
    async with Server([Orders()], port=0) as server, FaultProxy(server.address) as proxy:
        channel = Channel(proxy.address, codec=StreamkitCodec())
        quick = Reconnect(lambda: Retry(Backoff(first=0.001, longest=0.01)))
        got: list[int] = []
        async with ResumingCall(
            channel,
            PATH,
            Position,
            Update,
            request_from=lambda number: Position(sequence=number or 0),
            position_of=lambda order: int(order.topic),
            reconnect=quick,
        ) as orders:
            async for order in orders:
                got.append(int(order.topic))
                if len(got) % 100 == 50:
                    proxy.after(500, "reset")
        await channel.aclose()
    assert got == list(range(1, ORDERS + 1))
    assert proxy.accepted > 1
