"""A reader leaves nothing behind, and tells the smallest loss."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from streamkit.errors import StreamGapError
from streamkit.journal import Loss, Position
from streamkit.journal.base import Item, Items, Selector, Stream
from streamkit.journal.live.reader import Manner, Page, Reader
from streamkit.journal.live.ring import Ring

EVERY = Selector(Stream.UPDATES)


def ring_of(count: int, kept: int) -> Ring[int]:
    ring: Ring[int] = Ring("e", 0, max_records=kept, max_bytes=1 << 20)
    ring.push([Item(n, "k", 0, n) for n in range(1, count + 1)])
    return ring


def reader_of(ring: Ring[int], oldest: int, **manner: object) -> Reader[int]:
    async def history(selector: Selector, after: int, end: int) -> Page[int]:
        first = max(after + 1, oldest)
        found = [Item(n, "k", 0, n) for n in range(first, end + 1)]
        return Page(Items(found), end, oldest)

    return Reader(ring, history, EVERY, Manner(**manner))  # type: ignore[arg-type]  # manners of the test's own


async def start_at(place: int) -> Page[int]:
    return Page(Items[int](), place, 1)


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(("oldest", "loss"), [(4, None), (5, Loss(4, 4)), (6, Loss(4, 5))])
async def test_a_loss_of_one_record_is_a_loss(follow: bool, oldest: int, loss: Loss | None) -> None:
    ring = ring_of(10, kept=2)
    for tell in (True, False):
        reader = reader_of(ring, oldest, tell_loss=tell)
        begin = lambda: start_at(3)  # noqa: E731  # the reader awaits it once
        async with aclosing(reader.live(begin) if follow else reader.stored(begin)) as deliveries:
            assert (await anext(deliveries)).position == Position("e", 3)
            if loss is not None and not tell:
                with pytest.raises(StreamGapError) as gap:
                    await anext(deliveries)
                assert gap.value.oldest == oldest
                continue
            delivery = await anext(deliveries)
            assert delivery.loss == loss
            found = [item.sequence for item in delivery.items]
            while len(found) < 11 - oldest:
                found += [item.sequence for item in (await anext(deliveries)).items]
            assert found == list(range(oldest, 11))


async def test_a_reader_that_has_gone_leaves_no_timer_and_no_waiter() -> None:
    ring = ring_of(1, kept=10)
    reader = reader_of(ring, 1, heartbeat=3600.0)
    deliveries = reader.live(lambda: start_at(1))
    await anext(deliveries)
    (route,) = ring.routes.values()
    waiting = asyncio.ensure_future(anext(deliveries))
    await asyncio.sleep(0)
    assert len(route.waiting) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not route.waiting
    await deliveries.aclose()
    assert not ring.routes
    assert reader._timer is not None
    assert reader._timer.cancelled()  # else it would wake nobody every hour, for ever


async def test_a_wait_that_a_heartbeat_ends_is_forgotten() -> None:
    ring = ring_of(1, kept=10)
    reader = reader_of(ring, 1, heartbeat=0.02)
    async with aclosing(reader.live(lambda: start_at(1))) as deliveries, asyncio.timeout(10):
        await anext(deliveries)
        (route,) = ring.routes.values()
        for _ in range(5):
            beat = await anext(deliveries)
            assert not beat.items
            assert not route.waiting
