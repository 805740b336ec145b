"""More calls at once than a connection may have: all are made, none costs another its life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc.aio
import pytest_asyncio

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.generated.streamservice import (
    ProducerServiceBase,
    PublishRequest,
    StreamServiceBase,
    SubscribeRequest,
    Update,
    WriteReply,
)
from streamkit.transport import Channel, GrpcServer
from tests.transport.client.conftest import NewChannel
from tests.transport.raw import PUBLISH, SUBSCRIBE, RawClient, message
from tests.transport.services import ask

CALLS, LIMIT = 1000, 100


class Crowd:
    """Notes how many calls there are at once."""

    def __init__(self) -> None:
        self.live = self.most = self.served = 0
        self.full = asyncio.Event()
        self.release = asyncio.Event()

    @contextmanager
    def place(self) -> Iterator[None]:
        self.live += 1
        self.served += 1
        self.most = max(self.most, self.live)
        if self.live >= LIMIT:
            self.full.set()
        try:
            yield
        finally:
            self.live -= 1


class Replies(ProducerServiceBase):
    """Answers nobody before the first hundred are here."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        with self.crowd.place():
            await self.crowd.full.wait()
            await asyncio.sleep(0)
            return WriteReply(producer_sequence=1)


class Streams(StreamServiceBase):
    """Two messages, the second one when all are released."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        with self.crowd.place():
            yield Update(message="first")
            await self.crowd.release.wait()
            yield Update(message="last")


@pytest_asyncio.fixture
async def crowd() -> Crowd:
    return Crowd()


@pytest_asyncio.fixture
async def server(crowd: Crowd) -> AsyncIterator[GrpcServer]:
    limits = TransportLimits(max_streams=LIMIT)
    server = GrpcServer([Replies(crowd), Streams(crowd)], codec=StreamkitCodec(), limits=limits)
    await server.start()
    yield server
    await server.close()


async def test_a_thousand_calls_wait_for_their_places(
    connect: NewChannel, server: GrpcServer, crowd: Crowd
) -> None:
    channel: Channel = connect(server.addresses[0], connect_timeout=60.0)
    replies = await asyncio.gather(
        *(channel.unary(PUBLISH, PublishRequest(), WriteReply) for _ in range(CALLS))
    )
    assert [reply.producer_sequence for reply in replies] == [1] * CALLS
    assert (crowd.most, crowd.served, server.connections) == (LIMIT, CALLS, 1)


async def test_a_thousand_calls_of_grpcio(server: GrpcServer, crowd: Crowd) -> None:
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        publish = channel.unary_unary(PUBLISH)
        replies = await asyncio.gather(*(publish(b"") for _ in range(CALLS)))
    assert replies == [bytes(WriteReply(producer_sequence=1))] * CALLS
    assert (crowd.most, crowd.served) == (LIMIT, CALLS)


async def test_a_thousand_at_once_are_refused_one_by_one(server: GrpcServer, crowd: Crowd) -> None:
    """A client that ignores the limit: as many as fit are served, the others cost them nothing."""
    client = RawClient()
    await client.connect(server.addresses[0])
    calls = []
    for _ in range(CALLS):
        head = client.headers(client.fields(SUBSCRIBE))
        client.send(head, client.data(head.stream_id, message(ask("x"))))
        calls.append(head.stream_id)
    for stream in calls[LIMIT:]:
        assert (await client.ended(stream)).reset == 7  # REFUSED_STREAM: safe to be repeated
    crowd.release.set()
    for stream in calls[:LIMIT]:
        answer = await client.ended(stream)
        assert (answer.status, len(answer.messages)) == (0, 2)
    assert crowd.served == LIMIT
    again = client.call(ask("x"))
    assert (await client.ended(again)).status == 0
    await client.close()
