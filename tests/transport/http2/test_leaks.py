"""With the garbage collector off, nothing outlives its call."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.transport import Channel, Context
from streamkit.transport.client.attempt import WireAttempt
from streamkit.transport.client.request import ClientStream
from streamkit.transport.server.context import Next
from tests.transport.conftest import Dial, Serve
from tests.transport.inside import tasks_of
from tests.transport.raw import SUBSCRIBE, RawClient, message
from tests.transport.services import PlainCodec, Streams, ask


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def closed(streams: Streams, count: int, timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while len(streams.closed) < count:
            streams.changed.clear()
            await streams.changed.wait()


HOW = pytest.mark.parametrize("how", ["reset", "abort", "deadline", "close"])
TOPIC = pytest.mark.parametrize("topic", ["flood", "idle"])


@HOW
@TOPIC
async def test_generators_are_closed_at_once(
    how: str, topic: str, serve: Serve, dial: Dial, streams: Streams
) -> None:
    """Whether the handler is suspended in its own wait, or in a yield that flow control blocks."""
    delays = await disconnect(25, how, topic, serve, dial, streams)
    # Nothing but the end itself ends them; the machine may be busy with something else.
    assert sorted(delays)[len(delays) // 2] < 0.5 and max(delays) < 10


@HOW
@TOPIC
@pytest.mark.soak
async def test_generators_are_closed_within_100_ms(
    how: str, topic: str, serve: Serve, dial: Dial, streams: Streams
) -> None:
    delays = await disconnect(200, how, topic, serve, dial, streams)
    assert max(delays) < 0.1


async def disconnect(
    rounds: int, how: str, topic: str, serve: Serve, dial: Dial, streams: Streams
) -> list[float]:
    """End one stream after another; return how long each generator lived on."""
    server = await serve()
    delays = []
    for number in range(rounds):
        client: RawClient = await dial(server, {4: 1000})
        more = [("grpc-timeout", "50m")] if how == "deadline" else []
        head = client.headers(client.fields(SUBSCRIBE, *more))
        client.send(head, client.data(head.stream_id, message(ask(f"{topic}:x"))))
        await client.until(lambda c=client, h=head: bool(c.answer(h.stream_id).data))
        started = time.monotonic()
        if how == "reset":
            client.send(client.rst(head.stream_id))
        elif how == "abort":
            client.writer.transport.abort()
        elif how == "close":
            client.writer.close()
        else:
            started = streams.deadlines[-1]
        await closed(streams, number + 1)
        delays.append(streams.closed[number] - started)
        await client.close()
    assert len(streams.closed) == rounds
    within = sum(delay < 0.1 for delay in delays)
    slowest = max(delays) * 1000
    print(f"{topic} ended by {how}: {within}/{rounds} within 100 ms, slowest {slowest:.1f} ms")
    return delays


async def test_the_end_of_the_server_closes_generators(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    server = await serve()
    client = await dial(server, {4: 1000})
    for topic in ("flood", "idle:x"):
        stream = client.call(ask(topic))
        await client.until(lambda s=stream: bool(client.answer(s).data))
    await server.close()
    assert len(streams.closed) == 2


async def test_a_handler_that_ends_early_is_closed(serve: Serve, dial: Dial) -> None:
    """An iterator that is no generator has its own end to be told."""
    ended: list[str] = []

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Update:
            raise ValueError

        async def aclose(self) -> None:
            ended.append("closed")

    class Custom(Streams):
        def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            return Source()

    client = await dial(await serve(Custom()))
    assert (await client.ended(client.call(ask("x")))).status == 13
    assert ended == ["closed"]


async def test_calls_and_connections_are_freed_without_a_collector(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    server = await serve()
    client = await dial(server)
    calls, wires = [], []
    for topic in ("count:3", "fail:missing", "idle:x", "flood"):
        stream = client.call(ask(topic))
        await client.until(lambda s=stream: bool(client.answer(s).data))
        (protocol,) = server._connections
        if stream in protocol.processor.streams:
            wires.append(weakref.ref(protocol.processor.streams[stream]))
        calls += [weakref.ref(task) for task in tasks_of(protocol)]
        client.send(client.rst(stream))
        assert await client.pong()
    for body in (b"\0\0", b"\0\xff\xff\xff\xff", message(b"\xff"), message(b"", 1), b""):
        head = client.headers()
        client.send(head)
        assert await client.pong()
        wires.append(weakref.ref(protocol.processor.streams[head.stream_id]))
        calls += [weakref.ref(task) for task in tasks_of(protocol)]
        client.send(client.data(head.stream_id, body))
        await client.ended(head.stream_id)
    await asyncio.sleep(0.01)
    assert not server.calls
    assert len(wires) >= 7
    assert [ref for ref in calls if ref() is not None] == []
    assert [ref for ref in wires if ref() is not None] == []


async def test_a_call_is_freed_long_before_its_deadline(serve: Serve, dial: Dial) -> None:
    held: list[weakref.ref[object]] = []

    async def note(ctx: Context, call_next: Next) -> None:
        held.append(weakref.ref(ctx._exchange))
        await call_next(ctx)

    server = await serve(interceptors=[note])
    client = await dial(server)
    stream = client.call(ask("count:3"), SUBSCRIBE, ("grpc-timeout", "1H"))
    assert (await client.ended(stream)).status == 0
    while server.calls:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert [ref() for ref in held] == [None]


async def test_a_clients_calls_are_freed_without_a_collector(serve: Serve) -> None:
    server = await serve()
    held: list[weakref.ref[object]] = []
    async with Channel(f"localhost:{server.port}", codec=PlainCodec()) as channel:
        for topic in ("count:0", "count:1", "count:3"):
            request = SubscribeRequest(topics=[topic])
            call = channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request)
            held.append(weakref.ref(call))
            async with call:
                while await call.receive():
                    continue
            del call
    assert [ref for ref in held if ref() is not None] == []
    kinds = (ClientStream, WireAttempt)
    assert [found for found in gc.get_objects() if isinstance(found, kinds)] == []
