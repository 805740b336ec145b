"""The hub for users' own records."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

import pytest

from streamkit.errors import PreconditionError, StreamGapError
from streamkit.journal import Hub, Position, joined_frames
from streamkit.journal.live import ring


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


@pytest.mark.parametrize("readers", [3, 64])
async def test_many_readers_are_not_woken_for_each_record_of_a_burst(
    readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop rests from waking for as long as it took, and what came meanwhile comes at once."""
    now = [100.0]
    monkeypatch.setattr(ring, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ring, "_LONGEST_REST", 0.3)  # longer than a busy machine is away
    hub: Hub[str] = Hub()
    got: list[list[list[str]]] = [[] for _ in range(readers)]

    async def read(mine: list[list[str]]) -> None:
        async with aclosing(hub.subscribe()) as deliveries:
            async for delivery in deliveries:
                if delivery.items:
                    mine.append([item.message for item in delivery.items])
                    now[0] += 0.1

    async def turns() -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for mine in got:
            group.create_task(read(mine))
        await turns()
        hub.publish("a", "one")
        await turns()
        assert all(mine == [["one"]] for mine in got)  # the first of all waits for nothing
        hub.publish("a", "two")
        await turns()
        hub.publish("a", "three")
        while any(mine[-1][-1] != "three" for mine in got):
            await asyncio.sleep(0)
        apart = [["two"], ["three"]] if readers < 64 else [["two", "three"]]
        assert all(mine == [["one"], *apart] for mine in got)
        await turns()
        now[0] += 1
        hub.publish("a", "four")
        await turns()
        assert all(mine == [["one"], *apart, ["four"]] for mine in got)
        hub.close()
