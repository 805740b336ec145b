"""Everything that callers do, at once and for long: each call is answered once, nobody is cut."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest

from streamkit.codec import StreamkitCodec
from streamkit.errors import DeadlineError
from streamkit.generated.streamservice import (
    Producer,
    PublishRequest,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.transport import Channel, GrpcServer
from tests.transport.conftest import Serve
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE
from tests.transport.server.test_soak import resident
from tests.transport.services import Streams, Writes, ask

SHORT = 1.5
SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
WORKERS = 24  # of each kind of client
PAUSE = float(os.environ.get("SOAK_PAUSE", "0"))
"""Seconds that a caller waits at most before its next call, on a machine that others use, too."""

Work = Callable[[random.Random], Awaitable[str]]


class Replies(Writes):
    """Answers, and remembers nothing."""

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        return WriteReply(producer_sequence=publish_request.producer.sequence)

    async def write(
        self, write_request_iterator: AsyncIterator[WriteRequest]
    ) -> AsyncIterator[WriteReply]:
        async for request in write_request_iterator:
            yield WriteReply(producer_sequence=request.producer.sequence)


def of_grpcio(channel: grpc.aio.Channel) -> list[Work]:
    async def unary(rng: random.Random) -> str:
        number = rng.randrange(1, 1 << 40)
        reply = await channel.unary_unary(PUBLISH)(bytes(PublishRequest(Producer("p", number))))
        assert WriteReply().parse(reply).producer_sequence == number
        return "unary"

    async def stream(rng: random.Random) -> str:
        count = rng.randrange(200)
        got = [reply async for reply in channel.unary_stream(SUBSCRIBE)(ask(f"count:{count}"))]
        assert len(got) == count
        return "stream"

    async def both(rng: random.Random) -> str:
        count = rng.randrange(1, 200)

        async def requests() -> AsyncIterator[bytes]:
            for number in range(1, count + 1):
                yield bytes(WriteRequest(Producer("p", number)))

        got = [
            WriteReply().parse(reply).producer_sequence
            async for reply in channel.stream_stream(WRITE)(requests())
        ]
        assert got == list(range(1, count + 1))
        return "both"

    async def leave(rng: random.Random) -> str:
        call = channel.unary_stream(SUBSCRIBE)(ask("flood"))
        for _ in range(rng.randrange(1, 50)):
            await call.read()
        call.cancel()
        return "left"

    async def late(rng: random.Random) -> str:
        call = channel.unary_stream(SUBSCRIBE)(ask("idle"), timeout=rng.uniform(0.03, 0.3))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return "late"

    async def slow(rng: random.Random) -> str:
        call = channel.unary_stream(SUBSCRIBE)(ask("big:300000", "x"))
        await asyncio.sleep(rng.uniform(0, 0.5))
        assert len(await call.read()) > 300_000
        assert await call.read() is grpc.aio.EOF
        return "slow"

    return [unary, unary, unary, stream, both, leave, late, slow]


def of_ours(channel: Channel) -> list[Work]:
    async def unary(rng: random.Random) -> str:
        number = rng.randrange(1, 1 << 40)
        request = PublishRequest(Producer("p", number))
        reply = await channel.unary(PUBLISH, request, WriteReply, metadata={"x-id": str(number)})
        assert reply.producer_sequence == number
        return "unary"

    async def stream(rng: random.Random) -> str:
        count = rng.randrange(200)
        request = SubscribeRequest(topics=[f"count:{count}"])
        async with channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request) as call:
            assert [update.message async for update in call] == list(map(str, range(count)))
        return "stream"

    async def both(rng: random.Random) -> str:
        count = rng.randrange(1, 200)
        async with channel.stream(WRITE, WriteRequest, WriteReply) as call:
            for number in range(1, count + 1):
                await call.send(WriteRequest(Producer("p", number)))
            await call.end()
            got = [reply.producer_sequence async for reply in call]
        assert got == list(range(1, count + 1))
        return "both"

    async def leave(rng: random.Random) -> str:
        request = SubscribeRequest(topics=["flood"])
        async with channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request) as call:
            for _ in range(rng.randrange(1, 50)):
                await anext(call)
        return "left"

    async def late(rng: random.Random) -> str:
        request = SubscribeRequest(topics=["idle"])
        timeout = rng.uniform(0.03, 0.3)
        with pytest.raises(DeadlineError):
            async with channel.stream(
                SUBSCRIBE, SubscribeRequest, Update, request=request, timeout=timeout
            ) as call:
                await anext(call)
        return "late"

    async def slow(rng: random.Random) -> str:
        request = SubscribeRequest(topics=["big:300000"], client_id="x")
        async with channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request) as call:
            await asyncio.sleep(rng.uniform(0, 0.5))
            assert [len(update.message) async for update in call] == [300_000]
        return "slow"

    return [unary, unary, unary, stream, both, leave, late, slow]


@pytest.mark.parametrize(
    "seconds",
    [
        SHORT,
        pytest.param(SECONDS, marks=[pytest.mark.soak, pytest.mark.timeout(SECONDS + 300)]),
    ],
    ids=["short", "long"],
)
async def test_all_that_callers_do(
    serve: Serve, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    streams = Streams()
    server: GrpcServer = await serve(streams, Replies())
    tally: Counter[str] = Counter()
    until = time.monotonic() + seconds
    options = [("grpc.use_local_subchannel_pool", 1)]
    address = server.addresses[0]
    own = [Channel(address, codec=StreamkitCodec()) for _ in range(3)]

    async def work(seed: int, kinds: list[Work], name: str) -> None:
        rng = random.Random(seed)
        while time.monotonic() < until:
            tally[f"{name} {await rng.choice(kinds)(rng)}"] += 1
            await asyncio.sleep(rng.uniform(0, PAUSE))

    async def watch() -> list[int]:
        """The memory after each eighth of the time but the last."""
        found = []
        for _ in range(7):
            await asyncio.sleep(seconds / 8)
            streams.deadlines.clear()  # the handlers here remember each of their calls
            streams.closed.clear()
            gc.collect()
            found.append(resident())
        return found

    watching = asyncio.create_task(watch())

    async def peers() -> None:
        """On a loop of their own: grpcio takes one step at a time of a loop that others keep."""
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for seed in range(WORKERS):
                group.create_task(work(seed, of_grpcio(channels[seed % 3]), "grpcio"))
        for channel in channels:
            await channel.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(asyncio.run, peers()))
        for seed in range(WORKERS):
            group.create_task(work(seed, of_ours(own[seed % 3]), "ours"))
    memory = await watching
    print(f"{sum(tally.values())} calls: {dict(sorted(tally.items()))}")
    print(f"MiB after each eighth: {[size >> 20 for size in memory]}")
    assert sum(tally.values()) > 2 * WORKERS
    if seconds != SHORT:  # until then it is what each loads at first
        assert min(memory[4:]) - min(memory[:3]) < 8 << 20
    assert server.connections >= 3
    async with asyncio.timeout(10):
        while server.calls:  # the last ones that were left
            await asyncio.sleep(0.01)
    assert not [r for r in caplog.records if "connection" in r.getMessage()]
    for one in own:
        await one.aclose()
