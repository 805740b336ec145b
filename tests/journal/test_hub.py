"""The hub for users' own records."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from streamkit.errors import PreconditionError, StreamGapError
from streamkit.journal import Hub, Position, joined_frames


async def test_a_hub_resumes_where_a_stream_broke() -> None:
    hub: Hub[str] = Hub()
    assert [hub.publish("a.x", "1"), hub.publish("b", "2"), hub.publish("a.y", "3")] == [1, 2, 3]
    assert hub.position == Position(hub.epoch, 3)
    found = []
    async with aclosing(hub.subscribe("a.*", after=Position(hub.epoch, 1))) as deliveries:
        assert hub.subscribers == 0
        async for delivery in deliveries:
            found += [item.message for item in delivery.items]
            if found == ["3"]:
                hub.publish("a.z", "4")
                assert hub.subscribers == 1
            if len(found) == 2:
                break
    assert found == ["3", "4"]
    assert delivery.position == Position(hub.epoch, 4)
    assert hub.subscribers == 0


async def test_what_the_ring_dropped_is_a_loss() -> None:
    hub: Hub[int] = Hub(max_records=5)
    for n in range(20):
        hub.publish("k", n)
    assert hub.bounds == (16, 20)
    start = Position(hub.epoch, 2)
    async with aclosing(hub.subscribe(after=start, tell_loss=True)) as deliveries:
        await anext(deliveries)
        assert (await anext(deliveries)).loss == (3, 15)
        assert [item.message for item in (await anext(deliveries)).items] == [15, 16, 17, 18, 19]
    with pytest.raises(StreamGapError) as gap:
        async with aclosing(hub.subscribe(after=start)) as deliveries:
            await anext(deliveries)
            await anext(deliveries)
    assert (gap.value.oldest, gap.value.newest) == (16, 20)


async def test_positions_of_other_hubs_are_refused() -> None:
    hub: Hub[int] = Hub()
    for position in (Position("other", 0), Position(hub.epoch, 1)):
        with pytest.raises(PreconditionError):
            hub.subscribe(after=position)


async def test_close_ends_subscriptions() -> None:
    hub: Hub[int] = Hub()

    async def read() -> list[int]:
        async with aclosing(hub.subscribe()) as deliveries:
            return [item.message async for delivery in deliveries for item in delivery.items]

    tasks = [asyncio.create_task(read()) for _ in range(3)]
    while hub.subscribers < 3:
        await asyncio.sleep(0)
    hub.publish("k", 1)
    hub.close()
    assert await asyncio.gather(*tasks) == [[1]] * 3


async def test_bytes_are_made_once() -> None:
    hub: Hub[str] = Hub()
    async with aclosing(hub.subscribe("k")) as one, aclosing(hub.subscribe("k")) as two:
        await asyncio.gather(anext(one), anext(two))
        hub.publish("k", "a")
        hub.publish("k", "b")
        first, second = await asyncio.gather(anext(one), anext(two))
        joined = joined_frames(first, str.encode)
        assert joined == b"ab"
        assert joined_frames(second, str.encode) is joined
