"""resume: a service of one's own, its stub, and the names of the fields with the position."""

# ruff: noqa: RUF009  # the way in which betterproto declares fields
from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import betterproto
import pytest
from betterproto.grpc.grpclib_server import ServiceBase
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

import streamkit
from streamkit import Channel, Hub, Reconnect, Retry, Server, resume
from streamkit.client import ClientEvent
from streamkit.errors import InvalidArgumentError, PreconditionError, StreamGapError
from streamkit.testing import FaultProxy, connected, expect
from tests.client.servers import QUICK

PATH = "/shop.Orders/Watch"


@dataclasses.dataclass(eq=False, repr=False)
class WatchRequest(betterproto.Message):
    topics: list[str] = betterproto.string_field(1)
    epoch: str = betterproto.string_field(2)
    after: int = betterproto.uint64_field(3)


@dataclasses.dataclass(eq=False, repr=False)
class Place(betterproto.Message):
    epoch: str = betterproto.string_field(1)
    number: int = betterproto.uint64_field(2)


@dataclasses.dataclass(eq=False, repr=False)
class Order(betterproto.Message):
    epoch: str = betterproto.string_field(1)
    number: int = betterproto.uint64_field(2)
    place: Place = betterproto.message_field(3)


class Orders(ServiceBase):
    def __init__(self) -> None:
        self.hub: Hub[Order] = Hub()

    def sell(self, count: int) -> None:
        for _ in range(count):
            epoch, newest = self.hub.position
            order = Order(epoch, newest + 1, Place(epoch, newest + 1))
            self.hub.publish("orders.eu", order)

    async def _watch(self, stream: Stream[WatchRequest, Order]) -> None:
        request = await stream.recv_message()
        assert request is not None
        place = (request.epoch, request.after)
        async for order in self.hub.stream(request.topics, after=place):
            await stream.send_message(order)

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self._watch, Cardinality.UNARY_STREAM, WatchRequest, Order)}


class OrdersStub(betterproto.ServiceStub):
    """As the plug-in writes them."""

    async def watch(self, watch_request: WatchRequest) -> AsyncIterator[Order]:
        async for response in self._unary_stream(PATH, watch_request, Order):
            yield response

    async def count(self, watch_request: WatchRequest) -> Order:
        return await self._unary_unary("/shop.Orders/Count", watch_request, Order)


def quick(events: list[ClientEvent] | None = None) -> Reconnect:
    return Reconnect(lambda: Retry(QUICK), on_event=None if events is None else events.append)


@pytest.mark.parametrize(
    ("position", "asked_by"),
    [("epoch,number", ""), ("place.epoch, place.number", "epoch,after"), ("number", "")],
)
async def test_a_stub_and_the_names_of_two_fields_are_enough(position: str, asked_by: str) -> None:
    orders = Orders()
    got: list[int] = []
    async with Server([orders], port=0) as server, FaultProxy(server.address) as proxy:
        orders.sell(5)
        async with Channel(proxy.address) as channel:
            request = WatchRequest(topics=["orders.*"], epoch=orders.hub.epoch)
            watch = OrdersStub(channel).watch
            call = resume(watch, request, position=position, asked_by=asked_by, reconnect=quick())
            async with asyncio.timeout(20):
                async for order in call:
                    got.append(order.number)
                    if order.number == 20:
                        break
                    if order.number % 5 == 0:
                        proxy.reset()
                        orders.sell(5)
    assert got == list(range(1, 21))
    assert request.after == 0, "the caller's request is its own"


async def test_the_stubs_own_metadata_goes_along_and_its_timeout_does_not() -> None:
    said: list[tuple[object, object]] = []

    class Listening(Orders):
        async def _watch(self, stream: Stream[WatchRequest, Order]) -> None:
            call = streamkit.context()
            said.append((call.metadata.get("authorization"), call.time_left()))
            await super()._watch(stream)

    orders = Listening()
    orders.sell(1)
    async with connected([orders], carrier="inproc") as channel:
        stub = OrdersStub(channel, metadata={"authorization": "Bearer mine"}, timeout=5)
        for metadata in (None, {"authorization": "Bearer other"}):
            call = resume(stub.watch, WatchRequest(), position="number", metadata=metadata)
            async with call:
                await expect(call, 1)
    assert said == [("Bearer mine", None), ("Bearer other", None)]


async def test_a_new_life_of_the_server_is_read_from_its_beginning() -> None:
    events: list[ClientEvent] = []
    first, second = Orders(), Orders()
    server = Server([first], port=0, grace=0.1)
    await server.start()
    first.sell(3)
    got: list[tuple[str, int]] = []
    async with Channel(server.address) as channel:
        request = WatchRequest(topics=["orders.>"])
        call = resume(
            OrdersStub(channel).watch, request, position="epoch,number", reconnect=quick(events)
        )
        async with asyncio.timeout(20), call:
            for _ in range(3):
                order = await anext(aiter(call))
                got.append((order.epoch, order.number))
            port = server.port
            await server.stop()
            second.sell(2)
            async with Server([second], port=port, grace=0.1):
                for _ in range(2):
                    order = await anext(aiter(call))
                    got.append((order.epoch, order.number))
    assert got == [
        *((first.hub.epoch, number) for number in (1, 2, 3)),
        *((second.hub.epoch, number) for number in (1, 2)),
    ]
    assert [event.kind for event in events].count("gap") == 1, "what the old life had left is gone"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"position": "epoch,sequence"}, "Order has no field 'sequence'"),
        ({"position": "number,epoch"}, "WatchRequest has no field 'number'"),
        ({"position": "epoch,number", "asked_by": "after"}, "more or fewer"),
        ({"position": "epoch,number", "asked_by": "epoch,since"}, "no field 'since'"),
        ({"position": "place.sequence"}, "no field 'place.sequence'"),
        ({"position": ""}, "no field ''"),
    ],
)
async def test_fields_that_are_not_there_are_named(wrong: dict[str, str], said: str) -> None:
    async with Channel("127.0.0.1:1") as channel:
        with pytest.raises(InvalidArgumentError, match=said):
            resume(OrdersStub(channel).watch, WatchRequest(), **wrong)  # type: ignore[arg-type]  # wrong on purpose


async def test_what_is_no_method_of_a_stub_is_refused() -> None:
    async with Channel("127.0.0.1:1") as channel:
        for method in (OrdersStub(channel).count, OrdersStub.watch, print):
            with pytest.raises(InvalidArgumentError, match="no method that streams"):
                resume(method, WatchRequest(), position="number")  # type: ignore[arg-type]  # wrong on purpose


# ---- the server's half ----


async def _first(hub: Hub[int], count: int, **words: object) -> list[int]:
    stream = hub.stream("a.*", **words)  # type: ignore[arg-type]  # each case has its own
    try:
        return [await asyncio.wait_for(anext(stream), 5) for _ in range(count)]
    finally:
        await stream.aclose()


async def test_a_hub_streams_what_follows_a_place() -> None:
    hub: Hub[int] = Hub()
    for number in range(1, 6):
        hub.publish("a.b", number)
        hub.publish("b.c", -number)
    after = hub.position.sequence - 4
    assert await _first(hub, 2, after=(hub.epoch, after)) == [4, 5]
    assert await _first(hub, 2, after=hub.position._replace(sequence=after)) == [4, 5]
    assert await _first(hub, 2, after=after) == [4, 5]
    assert await _first(hub, 5, after=("", 0)) == [1, 2, 3, 4, 5]


async def test_a_place_of_another_life_starts_with_this_ones_oldest() -> None:
    hub: Hub[int] = Hub(max_records=3)
    for number in range(1, 6):
        hub.publish("a.b", number)
    assert await _first(hub, 3, after=("another", 2)) == [3, 4, 5]
    assert await _first(hub, 3, after=99) == [3, 4, 5]
    with pytest.raises(StreamGapError):
        await _first(hub, 1, after=(hub.epoch, 1))
    with pytest.raises(PreconditionError):
        await _first(hub, 1, after=(hub.epoch, 99))
