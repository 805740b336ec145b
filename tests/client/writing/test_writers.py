"""Publisher, LogWriter and JobHandle when the connection does not hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from streamkit.client import AsyncClient, ClientEvent
from streamkit.client.writing.writers import make_update
from streamkit.config import Backoff
from streamkit.errors import ConnectError, InvalidArgumentError, LimitError, StreamkitError
from streamkit.generated.streamservice import (
    ProducerServiceBase,
    PublishRequest,
    SequenceRange,
    StreamServiceBase,
    SubscribeRequest,
    Update,
    WriteReply,
)
from streamkit.server import Server
from streamkit.testing import FaultProxy
from streamkit.transport import context
from tests.client.servers import QUICK, memory_server, until


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    async with memory_server() as address, FaultProxy(address) as proxy:
        yield proxy


@pytest.fixture
async def events() -> list[ClientEvent]:
    return []


@pytest.fixture
async def client(proxy: FaultProxy, events: list[ClientEvent]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(
        proxy.address, backoff=QUICK, idle_timeout=0.5, on_event=events.append
    ) as client:
        yield client


async def stored(client: AsyncClient, count: int) -> list[str]:
    """All messages of topic "a", and a moment to see that there are no more."""
    messages: list[str] = []
    async with client.subscribe("a", start="all") as updates:
        while len(messages) < count:
            messages += [update.message for update in await updates.receive()]
        sentinel = await client.publish("a", "end")
        while messages[-1] != "end":
            messages += [update.message for update in await updates.receive()]
        assert updates.position is not None
        assert updates.position.sequence == sentinel
    return messages[:-1]


async def test_everything_acknowledged_is_stored_once_whatever_breaks(
    proxy: FaultProxy, client: AsyncClient
) -> None:
    chance = random.Random(7)
    total = 4000

    async def trouble() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.005, 0.03))
            fault = chance.choice(["cut", "reset", "half_close", "refuse", "black_hole"])
            if fault == "refuse":
                await proxy.refuse()
            else:
                getattr(proxy, fault)()
            await asyncio.sleep(0.01)
            await proxy.heal()

    troubling = asyncio.create_task(trouble())
    async with client.publisher(buffer=300) as publisher:
        for number in range(total):
            await publisher.send("a", str(number))
            if number % 20 == 0:
                await asyncio.sleep(0.002)
        troubling.cancel()
        await proxy.heal()
        await publisher.flush()
        assert (publisher.acknowledged, publisher.dropped, publisher.buffered) == (total, 0, 0)
    assert await stored(client, total) == [str(number) for number in range(total)]
    print(f"publisher: {total} messages over {proxy.accepted} connections, each stored once")
    assert proxy.accepted > 5


async def test_an_outage_is_buffered_and_what_overflows_is_counted_and_told(
    proxy: FaultProxy, client: AsyncClient, events: list[ClientEvent]
) -> None:
    drops: list[tuple[int, StreamkitError]] = []
    async with client.publisher(
        buffer=10, on_drop=lambda count, error: drops.append((count, error))
    ) as publisher:
        await publisher.send("a", "first")
        await publisher.flush()
        await proxy.refuse()
        taken = [publisher.try_send("a", str(number)) for number in range(15)]
        assert taken == [True] * 10 + [False] * 5
        await proxy.heal()
        await publisher.flush()
        assert publisher.try_send("a", "later")
    assert (publisher.acknowledged, publisher.dropped) == (12, 5)
    assert sum(count for count, _ in drops) == 5
    assert all(isinstance(error, LimitError) for _, error in drops)
    told = [event.detail for event in events if event.kind == "dropped"]
    assert told == [
        "publisher: the buffer is full, records are being dropped",
        "publisher: 5 records were dropped",
    ]
    assert await stored(client, 12) == ["first", *map(str, range(10)), "later"]


async def test_send_waits_for_room(proxy: FaultProxy, client: AsyncClient) -> None:
    async with client.publisher(buffer=5) as publisher:
        await proxy.refuse()
        for number in range(5):
            await publisher.send("a", str(number))
        waiting = asyncio.create_task(publisher.send("a", "5"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await proxy.heal()
        await waiting
    assert await stored(client, 6) == [str(number) for number in range(6)]


async def test_a_writer_waits_for_a_server_that_is_not_there_yet() -> None:
    async with memory_server() as address, FaultProxy(address) as proxy:
        await proxy.refuse()
        async with AsyncClient(proxy.address, backoff=QUICK) as client:
            async with client.publisher() as publisher:
                await publisher.send("a", "early")
                await asyncio.sleep(0.05)
                await proxy.heal()
            assert await stored(client, 1) == ["early"]


@pytest.mark.parametrize("end", ["flush", "close", "job"])
async def test_who_waits_for_the_outcome_waits_out_no_delay(proxy: FaultProxy, end: str) -> None:
    """The server is back, the next attempt would be a minute away, and the program ends."""
    lost = asyncio.Event()
    slow = Backoff(first=60.0, jitter=0.0)

    def on_event(event: ClientEvent) -> None:
        if event.kind == "reconnecting":
            lost.set()

    async with AsyncClient(proxy.address, backoff=slow, on_event=on_event) as client:
        if end == "job":
            async with client.job("j") as job:
                await proxy.refuse()
                await job.update(percentage=50)
                await lost.wait()
                await proxy.heal()
            assert (await client.jobs())[0].status == "completed"
            return
        writer = client.publisher()
        await writer.send("a", "1")
        await writer.flush()
        await proxy.refuse()
        await writer.send("a", "2")
        await lost.wait()
        await proxy.heal()
        async with asyncio.timeout(10):
            await (writer.flush() if end == "flush" else writer.close())
        assert (writer.acknowledged, writer.dropped) == (2, 0)


async def test_the_end_of_the_block_gives_up_in_time_and_says_so(
    proxy: FaultProxy, client: AsyncClient, events: list[ClientEvent]
) -> None:
    with pytest.raises(ConnectError, match="3 records"):
        async with client.publisher(drain_timeout=0.1) as publisher:
            await proxy.refuse()
            for number in range(3):
                await publisher.send("a", str(number))
    assert publisher.dropped == 3
    assert [event.kind for event in events][-1] == "dropped"
    with pytest.raises(ConnectError, match="closed"):
        await publisher.send("a", "x")


async def test_an_error_in_the_block_is_not_replaced(
    proxy: FaultProxy, client: AsyncClient
) -> None:
    await proxy.refuse()
    with pytest.raises(KeyError):
        async with client.publisher() as publisher:
            await publisher.send("a", "x")
            raise KeyError("mine")


async def test_cancelling_the_block_is_immediate(proxy: FaultProxy, client: AsyncClient) -> None:
    sent = asyncio.Event()

    async def work() -> None:
        async with client.publisher() as publisher:
            await publisher.send("a", "x")
            sent.set()
            await publisher.flush()

    await proxy.refuse()
    task = asyncio.create_task(work())
    await sent.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    async with asyncio.timeout(0.2):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_record_that_cannot_be_sent_is_refused_where_it_is_made(
    client: AsyncClient,
) -> None:
    async with client.publisher() as publisher:
        with pytest.raises(InvalidArgumentError):
            await publisher.send("a.*", "x")
        with pytest.raises(LimitError):
            await publisher.send("a", "x" * 5_000_000)
        await publisher.send("a", "y" * 1_000_000)
    assert publisher.acknowledged == 1


async def test_what_the_server_refuses_is_raised_by_flush(client: AsyncClient) -> None:
    async with client.log_writer("api") as writer:
        writer.service = "a*"  # what a log_writer would not make itself
        assert writer.write("x")
        with pytest.raises(InvalidArgumentError, match="service"):
            await writer.flush()
        writer.service = "api"
        assert writer.write("y")
    assert (writer.acknowledged, writer.dropped) == (1, 1)


async def test_a_log_writer_never_waits_and_tells_in_the_log_what_is_missing(
    proxy: FaultProxy, client: AsyncClient
) -> None:
    async with client.log_writer("api", buffer=3) as writer:
        await proxy.refuse()
        assert [writer.write(str(number)) for number in range(5)] == [True] * 3 + [False] * 2
        await proxy.heal()
        await writer.flush()
    entries = [(entry.level, entry.message) async for entry in client.logs("api")]
    assert entries == [
        *[("info", str(number)) for number in range(3)],
        ("warn", "2 log lines were dropped: the buffer was full"),
    ]
    assert writer.write("after the end") is False


async def test_job_reports_survive_an_outage(proxy: FaultProxy, client: AsyncClient) -> None:
    async with client.job("build", total=10) as job:
        await job.update(completed=1)
        await proxy.refuse()
        await job.update(completed=5, step="while away")
        await job.log("a line while away")
        for _ in range(3):
            await job.advance()
        await asyncio.sleep(0.3)
        await proxy.heal()
    states = [state async for state in client.watch_job("build")]
    assert (states[-1].status, states[-1].completed) == ("completed", 8)
    assert [entry.message async for entry in client.logs("build")] == ["a line while away"]


async def test_a_job_that_does_not_need_the_server(proxy: FaultProxy, client: AsyncClient) -> None:
    await proxy.refuse()
    async with client.job("offline", required=False) as job:
        await job.update(percentage=10)
        await proxy.heal()
    assert [state.status async for state in client.watch_job("offline")] == ["completed"]


async def test_a_single_publish_is_repeated_and_stored_once(
    proxy: FaultProxy, client: AsyncClient
) -> None:
    await client.publish("a", "0")
    for number in range(1, 6):
        # The request arrives, its answer does not.
        proxy.after(1, "reset")
        await client.publish("a", str(number))
    assert await stored(client, 6) == [str(number) for number in range(6)]


async def test_a_single_publish_gives_up_after_five_attempts(
    proxy: FaultProxy, client: AsyncClient, events: list[ClientEvent]
) -> None:
    await client.publish("a", "0")
    await proxy.refuse()
    with pytest.raises(ConnectError):
        await client.publish("a", "1")
    assert len([event for event in events if event.kind == "reconnecting"]) == 4


async def test_broken_streams_do_not_keep_a_publish_from_being_repeated(
    proxy: FaultProxy, client: AsyncClient
) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(client.subscribe("a")) for _ in range(20)]
        reading = [asyncio.create_task(stream.receive()) for stream in streams]
        await proxy.refuse()
        publishing = asyncio.create_task(client.publish("a", "x"))
        await until(lambda: proxy.connections == 0)
        await asyncio.sleep(QUICK.first * 2)  # every stream has failed once or twice
        await proxy.heal()
        assert await publishing == 1
        assert {(await task)[0].message for task in reading} == {"x"}


async def test_calls_at_the_same_time_outlive_a_restart(
    proxy: FaultProxy, client: AsyncClient
) -> None:
    """A server that is away is not one that is overloaded: nobody's calls are cut short."""
    await client.ping()
    await proxy.refuse()
    calls = [asyncio.create_task(client.publish("a", str(number))) for number in range(50)]
    await asyncio.sleep(QUICK.first * 2)  # every call has failed once or twice
    await proxy.heal()
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 51))


class Busy(ProducerServiceBase):
    """Refuses, with a wish if there is one, before it accepts."""

    def __init__(self, refusals: int, wish: str = "") -> None:
        self.refusals = refusals
        self.wish = wish
        self.calls = 0

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        self.calls += 1
        if self.calls <= self.refusals:
            if self.wish:
                context().set_trailing_metadata({"grpc-retry-pushback-ms": self.wish})
            raise ConnectError("busy")
        return WriteReply(updates=SequenceRange(first=7, count=1))


class Reluctant(StreamServiceBase):
    """Refuses the first call with a wish, and answers the second."""

    calls = 0

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        self.calls += 1
        if self.calls == 1:
            context().set_trailing_metadata({"grpc-retry-pushback-ms": "80"})
            raise ConnectError("busy")
        yield Update(topic="a", message="x")
        await asyncio.Event().wait()


async def test_a_stream_obeys_the_servers_push_back() -> None:
    events: list[ClientEvent] = []
    async with (
        Server([Reluctant()], port=0) as server,
        AsyncClient(server.address, on_event=events.append) as client,
    ):
        client._reached = True
        async with client.subscribe("a") as updates:
            assert [update.message for update in await updates.receive()] == ["x"]
    (delay,) = [event.delay for event in events if event.kind == "reconnecting"]
    assert delay is not None and 0.08 <= delay <= 0.1


async def test_a_call_obeys_the_servers_push_back() -> None:
    delays: list[float | None] = []
    busy = Busy(2, "80")
    async with (
        Server([busy], port=0) as server,
        AsyncClient(server.address, on_event=lambda event: delays.append(event.delay)) as client,
    ):
        client._reached = True
        assert await client.publish("a", "x") == 7
        assert all(delay is not None and 0.08 <= delay <= 0.1 for delay in delays[:2])
        busy.calls, busy.wish = 0, "-1"
        with pytest.raises(ConnectError, match="busy"):
            await client.publish("a", "x")
        assert busy.calls == 1


async def test_repeating_adds_little_to_the_load_of_a_server_that_only_refuses() -> None:
    busy = Busy(1_000_000)
    async with (
        Server([busy], port=0) as server,
        AsyncClient(server.address, backoff=QUICK) as client,
    ):
        client._reached = True
        for _ in range(100):
            with pytest.raises(ConnectError, match="busy"):
                await client.publish("a", "x")
    assert busy.calls <= 110


async def test_a_query_waits_no_longer_for_a_server_than_a_call_does(
    proxy: FaultProxy, client: AsyncClient, events: list[ClientEvent]
) -> None:
    await client.ping()
    await proxy.refuse()
    with pytest.raises(ConnectError):
        await client.query("SELECT 1").start()
    assert len([event for event in events if event.kind == "reconnecting"]) == 4


async def test_sequences_come_back_from_flush(client: AsyncClient) -> None:
    async with client.publisher() as publisher:
        for number in range(100):
            await publisher.send("a", str(number))
        assert await publisher.flush() == 100
        await until(lambda: publisher.buffered == 0)


@pytest.mark.parametrize("text", ["", "x" * 1000, "é" * 100_000])
async def test_a_record_counts_as_many_bytes_as_it_takes(text: str) -> None:
    more = {"key": "v" * 1000, "another": "w"}
    update, size = make_update("a.b", text, more)
    taken = len(bytes(update))
    assert taken <= size <= taken + 100
    async with AsyncClient("127.0.0.1:1") as client:
        entry, size = client.log_writer("s").entry(text[:1000], "info", more, None)
    taken = len(bytes(entry)) - len(text[:1000].encode()) + len(text[:1000])
    assert taken <= size <= taken + 100
