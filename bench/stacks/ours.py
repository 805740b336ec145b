"""streamkit, as server and as client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from grpclib.encoding.base import CodecBase

from bench.stacks import load
from streamkit.codec import StreamkitCodec, frame
from streamkit.config import TransportLimits
from streamkit.generated.streamservice import StreamServiceBase, SubscribeRequest, Update
from streamkit.transport import Channel, Framed, GrpcServer, context, run
from streamkit.transport.http2.output import Output
from streamkit.transport.http2.protocol import WireProtocol

STREAMS_PER_CONNECTION = 100


class Fan:
    """One encoding of each burst for all subscribers, joined once for each distance behind."""

    def __init__(self, subscribers: int, messages: int, burst: int) -> None:
        self._awaited = subscribers
        self._burst = burst
        self._bursts = messages // burst
        self._frames: list[bytes] = []
        self._joined: dict[tuple[int, int], Framed] = {}
        self._waiting: list[asyncio.Future[None]] = []

    def arrive(self) -> None:
        self._awaited -= 1
        if self._awaited == 0:
            self._publisher = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        for _ in range(self._bursts):
            encoded = [
                frame(Update(topic=load.TOPIC, message=load.TEXT)) for _ in range(self._burst)
            ]
            self._frames.append(b"".join(encoded))
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)
            await asyncio.sleep(0)

    async def bursts(self) -> AsyncIterator[Framed]:
        loop = asyncio.get_running_loop()
        position = 0
        while position < self._bursts:
            newest = len(self._frames)
            if position == newest:
                waiter = loop.create_future()
                self._waiting.append(waiter)
                await waiter
                continue
            behind = (position, newest)
            joined = self._joined.get(behind)
            if joined is None:
                data = b"".join(self._frames[position:newest])
                joined = Framed(data, self._burst * (newest - position))
                self._joined[behind] = joined
            yield joined
            position = newest


class Service(StreamServiceBase):
    """Streams by topic: count, pace, big, kept, idle, fan."""

    def __init__(self) -> None:
        self._fan: Fan | None = None

    async def subscribe_to_updates(self, request: SubscribeRequest) -> AsyncIterator[Any]:
        what = request.topics[0]
        number = int(request.client_id or 0)
        if what == "count":
            for _ in range(number):
                yield Update(topic=load.TOPIC, message=load.TEXT)
        elif what == "pace":
            for _ in range(number):
                await asyncio.sleep(load.PACE)
                yield Update(topic=load.stamp(), message=load.TEXT)
        elif what == "big":
            for _ in range(number):
                yield Update(message=load.BIG)
        elif what == "kept":
            encoded = frame(Update(message="x" * int(request.topics[1])))
            for _ in range(number):
                yield Framed(encoded, 1)
        elif what == "idle":
            await context().send_initial_metadata()
            await asyncio.Event().wait()
        elif what == "fan":
            if self._fan is None:
                self._fan = Fan(number, *map(int, request.topics[1:]))
            fan = self._fan
            fan.arrive()
            async for burst in fan.bursts():
                yield burst


async def serve() -> None:
    load.raise_file_limit()
    server = GrpcServer([Service()], codec=StreamkitCodec())
    await server.start("127.0.0.1", 0)
    load.announce(server.port)
    await asyncio.to_thread(load.wait_for_the_end)
    await server.close()


def as_it_came(data: Any) -> Any:
    return data


def leave_out(what: str) -> None:
    """Take one of the transport's short ways away, to see what it is worth."""
    if what == "lead":
        Output.lead = lambda *_: False  # type: ignore[method-assign]  # off, to compare
    elif what == "in place":
        WireProtocol.receive_in_place = lambda self: None  # type: ignore[method-assign]  # as above


class Untouched(CodecBase):
    """Leaves replies as bytes: a subscriber that costs nearly nothing."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


def subscription(
    channel: Channel, *topics: str, number: int = 0, decoder: Callable[[bytes], Any] | None = None
) -> Any:
    request = SubscribeRequest(topics=list(topics), client_id=str(number))
    return channel.stream(
        load.SUBSCRIBE, SubscribeRequest, Update, request=request, decoder=decoder
    )


async def client(
    task: str, port: int, number: int, messages: int = 0, burst: int = load.FAN_BURST
) -> None:
    load.raise_file_limit()
    target = f"127.0.0.1:{port}"
    if task in ("fan", "idle"):
        await crowd(task, target, number, messages, burst)
        return
    async with Channel(target, codec=StreamkitCodec()) as channel:
        if task == "latency":
            micros: list[float] = []
            async with subscription(channel, "pace", number=number) as call:
                while found := await call.receive():
                    micros += [load.since(update.topic) for update in found]
            load.report(**load.latencies(micros))
            return
        # The clock of load.rate() is synchronous: it asks for one run after the other.
        loop = asyncio.get_running_loop()

        async def receive(count: int) -> None:
            got = 0
            words, decoder = [task], None
            if task == "kept":
                words, decoder = [task, str(messages)], as_it_came
            async with subscription(channel, *words, number=count, decoder=decoder) as call:
                while found := await call.receive():
                    got += len(found)
            assert got == count

        def blocking(count: int) -> None:
            asyncio.run_coroutine_threadsafe(receive(count), loop).result()

        measure = load.payload_rate if task == "big" else load.rate
        if task == "kept":
            measure = partial(load.sized_rate, size=messages)
        load.report(**await asyncio.to_thread(measure, blocking))


async def crowd(task: str, target: str, subscribers: int, messages: int, burst: int) -> None:
    """Many light subscribers; `idle` ones stay until our input is closed."""
    async with AsyncExitStack() as stack:
        calls = []
        channel: Channel
        for index in range(subscribers):
            if index % STREAMS_PER_CONNECTION == 0:
                limits = TransportLimits(stream_window=256 * 1024)
                channel = await stack.enter_async_context(
                    Channel(target, codec=Untouched(), limits=limits)
                )
            call = subscription(channel, task, str(messages), str(burst), number=subscribers)
            calls.append(await stack.enter_async_context(call))

        async def drain(call: Any) -> int:
            got = 0
            while found := await call.receive():
                got += len(found)
            return got

        if task == "fan":
            counts = await asyncio.gather(*(drain(call) for call in calls))
            assert set(counts) == {messages}, sorted(set(counts))
            load.report(deliveries=float(sum(counts)))
        else:
            await asyncio.gather(*(call.initial_metadata() for call in calls))
            load.report(open=float(len(calls)))
            await asyncio.to_thread(load.wait_for_the_end)


def main() -> None:
    """serve | client TASK PORT NUMBER [MESSAGES|SIZE [BURST]]; `plain` asks for asyncio's loop."""
    leave_out(os.environ.get("BENCH_WITHOUT", ""))
    words = [word for word in sys.argv[1:] if word != "plain"]
    start = asyncio.run if len(words) < len(sys.argv) - 1 else run
    if words[0] == "serve":
        start(serve())
    else:
        start(client(words[1], *map(int, words[2:])))


if __name__ == "__main__":
    main()
