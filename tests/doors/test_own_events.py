"""Streams of one's own as server-sent events: ids, gaps, endings, and the words of the address."""

# ruff: noqa: RUF009  # the way in which betterproto declares fields
from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import betterproto
import pytest
from betterproto.grpc.grpclib_server import ServiceBase
from grpclib.const import Cardinality, Handler

from streamkit import Framed, Hub, Server, as_events, joined_frames, resume
from streamkit.codec import frame
from streamkit.config import DoorLimits
from streamkit.errors import InvalidArgumentError
from tests.client.reading.test_own import Order, Place, WatchRequest
from tests.doors.http import ask
from tests.doors.test_events import take


@dataclasses.dataclass(eq=False, repr=False)
class FindRequest(betterproto.Message):
    words: list[str] = betterproto.string_field(1)
    at_least: int = betterproto.uint32_field(2)
    exact: bool = betterproto.bool_field(3)
    place: Place = betterproto.message_field(4)
    number: int = betterproto.uint64_field(5)


class Orders(ServiceBase):
    """As one writes it, over what the plug-in writes."""

    def __init__(self, most: int = 1000) -> None:
        self.hub: Hub[Order] = Hub(max_records=most)
        self.asked: list[FindRequest] = []
        self.made = 0

    def sell(self, count: int) -> None:
        for _ in range(count):
            epoch, newest = self.hub.position
            order = Order(epoch, newest + 1, Place(epoch, newest + 1))
            self.hub.publish("orders.eu", order)

    @as_events("/v1/orders", position="epoch,number")
    async def watch(self, request: WatchRequest) -> AsyncIterator[Order]:
        async for order in self.hub.stream(request.topics, after=(request.epoch, request.after)):
            yield order

    @as_events("/found", position="place.epoch,place.number")
    async def find(self, request: FindRequest) -> AsyncIterator[Order]:
        self.asked.append(request)
        for number in range(request.place.number, 3):
            yield Order(place=Place("a life.1", number + 1))

    @as_events("/raw")
    async def raw(self, request: WatchRequest) -> AsyncIterator[Framed]:
        async for delivery in self.hub.subscribe(*request.topics):
            if delivery.items:
                yield Framed(joined_frames(delivery, self._frame), len(delivery.items))

    def _frame(self, order: Order) -> bytes:
        self.made += 1
        return frame(order)

    def __mapping__(self) -> dict[str, Handler]:
        def served(method: Any, kind: Any) -> Handler:
            async def glue(stream: Any) -> None:
                request = await stream.recv_message()
                await self._call_rpc_handler_server_stream(method, stream, request)

            return Handler(glue, Cardinality.UNARY_STREAM, kind, Order)

        return {
            "/shop.Orders/Watch": served(self.watch, WatchRequest),
            "/shop.Orders/Find": served(self.find, FindRequest),
            "/shop.Orders/Raw": served(self.raw, WatchRequest),
        }


@asynccontextmanager
async def served(orders: Orders) -> AsyncIterator[str]:
    async with Server([orders], port=0, web=True) as server:
        yield server.address


def numbers(events: list[dict[str, str]]) -> list[int]:
    return [int(json.loads(event["data"])["number"]) for event in events]


async def test_a_stream_of_ones_own_is_read_and_resumed_behind_every_door() -> None:
    orders = Orders()
    orders.sell(5)
    epoch = orders.hub.epoch
    async with served(orders) as address:
        target = "/v1/orders?topics=orders.*&topics=other"
        async with ask(address, "GET", target, last_event_id=f"{epoch}.0") as reply:
            events = await take(reply, 2)
        assert [event["id"] for event in events] == [f"{epoch}.1", f"{epoch}.2"]
        async with ask(address, "GET", f"{target}&after={events[-1]['id']}") as reply:
            events += await take(reply, 2)
        async with ask(address, "GET", f"/v1/orders?epoch={epoch}&after=4") as reply:
            events += await take(reply, 1)
            orders.sell(1)
            events += await take(reply, 1)
        assert numbers(events) == [1, 2, 3, 4, 5, 6]


async def test_what_is_missed_is_a_gap_and_what_is_kept_follows() -> None:
    orders = Orders(most=16)
    orders.sell(60)
    oldest = orders.hub.bounds.oldest
    assert oldest > 3
    async with served(orders) as address:
        last = f"{orders.hub.epoch}.2"
        async with ask(address, "GET", "/v1/orders", last_event_id=last) as reply:
            gap, first = await take(reply, 2)
    assert gap["event"] == "gap"
    told = json.loads(gap["data"])
    assert (told["first"], told["last"]) == (3, oldest - 1)
    assert numbers([first]) == [oldest]


async def test_a_place_of_another_life_is_a_gap_and_then_everything() -> None:
    orders = Orders()
    orders.sell(2)
    async with (
        served(orders) as address,
        ask(address, "GET", "/v1/orders", last_event_id="other.9") as reply,
    ):
        gap, one, two = await take(reply, 3)
    assert json.loads(gap["data"])["reason"] == "the position is of another life"
    assert numbers([one, two]) == [1, 2]


async def test_a_stream_that_ends_says_so_and_has_no_more_for_who_comes_again() -> None:
    orders = Orders()
    async with served(orders) as address:
        async with ask(address, "GET", "/found") as reply:
            *found, end = await take(reply, 4)
            assert await reply.body() == b""
        assert [event["id"] for event in found] == [f"a%20life.1.{n}" for n in (1, 2, 3)]
        assert end["event"] == "end"
        async with ask(address, "GET", "/found", last_event_id=found[0]["id"]) as reply:
            assert (await take(reply, 1))[0]["id"] == "a%20life.1.2"
        async with ask(address, "GET", "/found", last_event_id=found[-1]["id"]) as reply:
            assert reply.status == 204
    assert orders.asked[-1].place == Place("a life.1", 3)


async def test_the_words_of_the_address_are_the_fields_of_the_request() -> None:
    orders = Orders()
    async with served(orders) as address:
        target = "/found?words=a%20b&words=c&at_least=7&exact=1"
        async with ask(address, "GET", target) as reply:
            assert reply.status == 200
        assert orders.asked == [FindRequest(words=["a b", "c"], at_least=7, exact=True)]
        for words, said in (
            ("word=x", "has no field 'word'"),
            ("atLeast=many", ""),
            ("exact=perhaps", "neither true nor false"),
            ("place=x", "is no JSON"),
            ("after=7", "is no position"),
            ("&".join(["words=x"] * 101), "more than 100 values"),
        ):
            async with ask(address, "GET", f"/found?{words}") as reply:
                assert (reply.status, said in (await reply.body()).decode()) == (400, True), words
        async with ask(address, "POST", "/found", b"{}", content_type="text/plain") as reply:
            assert reply.status == 405


async def test_what_is_framed_once_is_made_once_for_all_and_silence_is_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from streamkit.doors import door

    monkeypatch.setattr(door, "DoorLimits", lambda: DoorLimits(heartbeat=0.1))
    orders = Orders()
    async with (
        served(orders) as address,
        ask(address, "GET", "/raw") as one,
        ask(address, "GET", "/raw") as two,
    ):
        async with asyncio.timeout(10):
            async for event in one.events():
                if "" in event:  # a comment
                    break
        orders.sell(1)
        for reply in (one, two):
            [event] = await take(reply, 1)
            assert "id" not in event and '"number":"1"' in event["data"]
    assert orders.made == 1


class Wrong(Orders):
    def __init__(self, mark: Any) -> None:
        super().__init__()
        self._mark = mark

    def __mapping__(self) -> dict[str, Handler]:
        found = super().__mapping__()
        func, cardinality, request, reply = found["/shop.Orders/Watch"]
        return found | {"/shop.Orders/More": Handler(self._mark(func), cardinality, request, reply)}


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (as_events("/v1/orders"), "two methods are offered at /v1/orders"),
        (as_events("orders"), "no address to be had"),
        (as_events("/v1/updates"), "no address to be had"),
        (as_events("/more", position="nothing"), "Order has no field 'nothing'"),
        (as_events("/more", position="number", asked_by="topics"), "neither a number nor a text"),
    ],
)
async def test_what_cannot_be_offered_is_refused_at_the_start(mark: Any, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        async with served(Wrong(mark)):
            pass


def test_both_ends_name_positions_alike() -> None:
    """What a client of gRPC says to `resume`, a service says to `as_events`."""
    import inspect

    names = {"position", "asked_by"}
    assert names <= set(inspect.signature(resume).parameters)
    assert names <= set(inspect.signature(as_events).parameters)
