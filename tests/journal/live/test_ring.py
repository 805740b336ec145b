"""The ring and its readers, against a plain list, in any order of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.journal.base import Delivery, Item, Items, Selector, Stream
from streamkit.journal.live import ring
from streamkit.journal.live.reader import Manner, Page, Reader
from streamkit.journal.live.ring import Ring, cut

KEYS = ("a", "b.x", "b.y")
SELECTORS = (
    Selector(Stream.UPDATES),
    Selector(Stream.UPDATES, ("a",)),
    Selector(Stream.UPDATES, ("b.*",)),
    Selector(Stream.UPDATES, ("a", "b.y")),
    Selector(Stream.UPDATES, (), 1),
    Selector(Stream.UPDATES, ("b.>",), 1),
)

events = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.lists(st.integers(0, 5), min_size=1, max_size=12)),
        st.tuples(st.just("skip"), st.lists(st.integers(0, 5), min_size=1, max_size=12)),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
    ),
    max_size=60,
)


class Model:
    """A ring of a few items before a list of all, and readers that a test steps."""

    def __init__(self, ring_records: int) -> None:
        self.all: list[Item[int]] = []
        self.ring: Ring[int] = Ring("e", 0, max_records=ring_records, max_bytes=1 << 20)
        self.readers: dict[int, AsyncGenerator[Delivery[int], None]] = {}
        self.got: dict[int, list[Item[int]]] = {}
        self.pending: dict[int, asyncio.Task[Delivery[int]]] = {}

    def push(self, kinds: list[int]) -> None:
        self.ring.push(self._store(kinds))

    def skip(self, kinds: list[int]) -> None:
        """Items that come to the history only."""
        self.ring.skip(self._store(kinds)[-1].sequence)

    def _store(self, kinds: list[int]) -> list[Item[int]]:
        first = len(self.all) + 1
        items = [Item(n, KEYS[kind % 3], kind // 3, n) for n, kind in enumerate(kinds, start=first)]
        self.all += items
        return items

    async def history(self, selector: Selector, after: int, end: int) -> Page[int]:
        await asyncio.sleep(0)
        found = [i for i in self.all[after:end] if selector.matches(i.key, i.rank)]
        items = cut(found[:3])
        covered = end if len(items) == len(found) else items[-1].sequence
        return Page(items, covered, 1)

    async def step(self, reader: int, selector: Selector) -> None:
        """Let a reader read one delivery if there is one now."""
        if reader not in self.readers:

            async def begin() -> Page[int]:
                return Page(Items(), 0, 1)

            made = Reader(self.ring, self.history, selector, Manner())
            self.readers[reader] = made.live(begin)
            self.got[reader] = []
        if reader not in self.pending:
            self.pending[reader] = asyncio.ensure_future(anext(self.readers[reader]))
        for _ in range(8):
            await asyncio.sleep(0)
        self.collect(reader)

    def collect(self, reader: int) -> None:
        task = self.pending.get(reader)
        if task is not None and task.done():
            del self.pending[reader]
            self.got[reader] += task.result().items

    async def leave(self, reader: int) -> None:
        if reader in self.pending:
            task = self.pending.pop(reader)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if reader in self.readers:
            await self.readers.pop(reader).aclose()


async def run(script: list[tuple[str, object]], ring_records: int) -> None:
    model = Model(ring_records)
    selectors = {n: SELECTORS[n % len(SELECTORS)] for n in range(4)}
    gone: dict[int, int] = {}
    for kind, value in script:
        if kind == "push":
            model.push(value)  # type: ignore[arg-type]  # drawn together
        elif kind == "skip":
            model.skip(value)  # type: ignore[arg-type]  # drawn together
        elif kind == "read":
            await model.step(value, selectors[value])  # type: ignore[arg-type, index]  # drawn together
        elif kind == "turn":
            await asyncio.sleep(0)
        elif value in model.readers:
            await model.leave(value)
            gone[value] = gone.get(value, 0) + 1
    for reader in list(model.readers):
        wanted = [i for i in model.all if selectors[reader].matches(i.key, i.rank)]
        for _ in range(len(wanted) + 10):
            if len(model.got[reader]) >= len(wanted):
                break
            await model.step(reader, selectors[reader])
        assert [i.sequence for i in model.got[reader]] == [i.sequence for i in wanted]
        await model.leave(reader)
    assert model.ring.readers == 0
    assert not model.ring.routes
    assert len(model.ring) <= ring_records


@settings(max_examples=250, deadline=None)
@given(events, st.integers(1, 20))
def test_readers_get_all_once_in_order(script: list[tuple[str, object]], records: int) -> None:
    asyncio.run(run(script, records))


@settings(max_examples=150, deadline=None)
@given(events, st.integers(1, 20))
def test_readers_woken_in_parts_get_all_once_in_order(
    script: list[tuple[str, object]], records: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "_MANY", 1)
        patch.setattr(ring, "_PART", 1)
        patch.setattr(ring, "_LONGEST_REST", 0.0)
        asyncio.run(run(script, records))


async def test_what_comes_while_many_are_woken_reaches_each_in_one_delivery() -> None:
    many = 300
    end: Ring[int] = Ring("e", 0, max_records=100, max_bytes=1 << 20)
    got: list[list[int]] = [[] for _ in range(many)]
    begun, woken, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    left = many

    async def read(mine: list[int]) -> None:
        nonlocal left

        async def begin() -> Page[int]:
            return Page(Items(), 0, 1)

        reader = Reader(end, None, SELECTORS[0], Manner())
        async with aclosing(reader.live(begin)) as deliveries:
            async for delivery in deliveries:
                if not delivery.items:
                    left -= 1
                    if not left:
                        begun.set()
                    continue
                woken.set()
                mine.append(len(delivery.items))
                if sum(mine) == 4:
                    break
        left += 1
        if left == many:
            over.set()

    readers = [asyncio.ensure_future(read(mine)) for mine in got]
    await begun.wait()
    end.push([Item(1, "a", 0, 1)])
    await woken.wait()
    assert got.count([]) > 200  # whoever waited for the first of them did not wait for all
    for number in range(2, 5):
        end.push([Item(number, "a", 0, number)])
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await over.wait()
    assert got == [[1, 3]] * many
    await asyncio.gather(*readers)


async def test_the_ring_is_bounded_in_bytes() -> None:
    ring: Ring[str] = Ring("e", 0, max_records=1000, max_bytes=10_000)
    selector = Selector(Stream.UPDATES, ("k",))
    route = ring.join(selector)
    for n in range(1, 500):
        ring.push([Item(n, "k", 0, "x", 300)])
        assert len(ring) <= 33
    assert (ring.newest, ring.floor) == (499, 466)
    assert route.floor == 466
    assert route.cursor_after(466) == route.base
    ring.leave(route)


async def test_a_new_reader_scans_the_ring_and_not_the_store() -> None:
    ring: Ring[str] = Ring("e", 0, max_records=100, max_bytes=1 << 20)
    ring.push([Item(n, "k", 0, "x", 300) for n in range(1, 200)])
    items, covered = ring.scan(Selector(Stream.UPDATES, ("k",)), 150)
    assert [i.sequence for i in items] == list(range(151, 200))
    assert covered == 199
    assert ring.scan(Selector(Stream.UPDATES, ("none",)), 150) == ([], 199)


async def test_routes_for_many_keys_are_found_again_after_changes() -> None:
    ring: Ring[int] = Ring("e", 0, max_records=10, max_bytes=1 << 20)
    wide = ring.join(Selector(Stream.UPDATES, (">",)))
    for n in range(1, 50):
        ring.push([Item(n, f"k{n % 5}", 0, n)])
    exact = ring.join(Selector(Stream.UPDATES, ("k3",)))
    ring.push([Item(50, "k3", 0, 50), Item(51, "k4", 0, 51)])
    await asyncio.sleep(0)
    assert [i.sequence for i in exact.waiting_items(0)] == [50]
    assert exact.sealed_at == 51
    ring.leave(wide)
    ring.push([Item(52, "k3", 0, 52)])
    await asyncio.sleep(0)
    assert [i.sequence for i in exact.waiting_items(1)] == [52]
    ring.leave(exact)
    assert ring.readers == 0
