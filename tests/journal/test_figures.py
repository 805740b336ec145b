"""Figures of the journal alone, in a short form: costs that must not grow with what is there.

The rates that are only printed depend on the machine; `python -m bench.journal` gives them in
their long form.
"""

from __future__ import annotations

import gc
import time
import tracemalloc

import pytest

from bench import journal as bench
from streamkit.generated.streamservice import Update
from streamkit.journal import Hub, open_journal
from streamkit.testing.journal.support import following, topics, updates


async def test_a_message_that_nobody_wants_costs_the_same_with_1000_subscribers() -> None:
    one = many = float("inf")
    for _ in range(6):  # the least of several, as others may use the machine
        one = min(one, (await bench.routing(1, 1, wanted=False))[0])
        many = min(many, (await bench.routing(1000, 1000, wanted=False))[0])
        if many < 1.4 * one:
            break
    print(f"unwanted message: {one:.2f} us CPU with 1 subscriber, {many:.2f} us with 1,000")
    assert many < 1.5 * one


async def test_fan_out_shares_the_bytes() -> None:
    _, alone = await bench.routing(1, 1, wanted=True)
    each, apart = await bench.routing(1000, 1000, wanted=True, messages=10_000)
    _, together = await bench.routing(1000, 1, wanted=True, messages=1000)
    print(
        f"CPU a delivery: {alone:.2f} us for 1 subscriber, {apart:.2f} us for 1,000 on 1,000"
        f" topics ({each:.2f} us a message), {together:.3f} us for 1,000 on one topic"
    )
    assert together < alone / 4


async def last_lines(lines: int) -> None:
    asked = (
        (("svc1",), 0, 100),
        (("svc1",), 3, 100),
        (("rare",), 0, 10),
        (("svc1*",), 2, 100),
        ((), 3, 100),
    )
    spent = []
    async with bench.fresh(ring=1) as journal:
        for size in (lines // 10, lines - lines // 10):
            await bench.fill(journal, size)
            spent.append([await bench.find(journal, *each) for each in asked])
    for (services, level, last), few, many in zip(asked, *spent, strict=True):
        name = services[0] if services else "every service"
        print(
            f"last {last} of {name} at level {level}: {few:.2f} ms in {lines // 10:,} lines,"
            f" {many:.2f} ms in {lines:,}"
        )
        assert many < 4 * few + 5


async def test_the_last_lines_are_found_in_bounded_time() -> None:
    await last_lines(60_000)


@pytest.mark.soak
async def test_the_last_lines_of_a_million_are_found_in_bounded_time() -> None:
    await last_lines(1_000_000)


async def test_durable_ingest() -> None:
    rates = {kind: await bench.ingest(20_000, 100, durability=kind) for kind in ("normal", "full")}
    print(f"acknowledged in batches of 100: {rates['normal']:,.0f}/s, full {rates['full']:,.0f}/s")
    assert rates["normal"] > 3000


@pytest.mark.soak
async def test_durable_ingest_at_length() -> None:
    for kind in ("normal", "full"):
        for batch in (1, 100, 1000):
            writers = 100 if batch == 1 else 8
            events = 100_000 if batch == 1 else 2_000_000
            rate = await bench.ingest(events, batch, durability=kind, writers=writers)
            print(f"durability {kind}, batches of {batch}: {rate:,.0f} acknowledged/s")
            if (kind, batch) == ("normal", 100):
                assert rate > 60_000


async def resumed(events: int) -> float:
    update = Update(topic="t", message=bench.TEXT)
    async with bench.fresh(ring=1) as journal:
        for _ in range(events // 1000):
            await journal.append_updates([update] * 1000)
        rate = await bench.resume(journal)
    print(f"resume of {events:,} updates from the store, framed: {rate:,.0f}/s")
    return rate


async def test_resume_from_the_store() -> None:
    assert await resumed(20_000) > 3000


@pytest.mark.soak
async def test_resume_of_a_million_from_the_store() -> None:
    assert await resumed(1_000_000) > 80_000


async def test_a_subscriber_that_waits_costs_little_memory() -> None:
    hub: Hub[int] = Hub()
    readers = [hub.subscribe(f"t{n}") for n in range(500)]
    gc.collect()
    tracemalloc.start()
    for reader in readers:
        await anext(reader)
    each = tracemalloc.get_traced_memory()[0] / len(readers)
    tracemalloc.stop()
    for reader in readers:
        await reader.aclose()
    print(f"a waiting subscriber costs {each:,.0f} bytes in the hub")
    assert each < 4096


async def test_a_wake_up_is_prompt() -> None:
    async with await open_journal() as journal, following(journal, topics("t")) as live:
        best = 1.0
        for n in range(1, 50):
            began = time.perf_counter()
            await journal.append_updates(updates("x"))
            await live.until(n)
            best = min(best, time.perf_counter() - began)
    print(f"append to delivery, in memory: {best * 1e6:.0f} us at best")
    assert best < 0.05
