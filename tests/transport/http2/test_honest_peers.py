"""The budgets of `TransportLimits` are for what no honest peer does: here each is next to nothing,
and busy honest peers are served. What the budgets are for is in `test_attacks`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from hyperframe.frame import SettingsFrame

from streamkit.generated.streamservice import Producer, WriteRequest
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE, message
from tests.transport.services import ask

NOTHING = {"window_updates": 1, "empty_frames": 1, "resets": 1, "pings": 2, "settings": 10}


async def test_unary_calls_of_grpcio(serve: Serve) -> None:
    server = await serve(**NOTHING)
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        publish = channel.unary_unary(PUBLISH)

        async def calls() -> None:
            for _ in range(20):
                assert await publish(b"")

        await asyncio.gather(*(calls() for _ in range(16)))
        await asyncio.gather(*(publish(b"") for _ in range(1200)))


async def test_streams_of_grpcio(serve: Serve) -> None:
    server = await serve(**NOTHING)

    async def requests() -> AsyncIterator[bytes]:
        for number in range(2000):
            yield bytes(WriteRequest(Producer(id=str(number))))

    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        count = 0
        async for _ in channel.unary_stream(SUBSCRIBE)(ask("count:3000")):
            count += 1
        async for _ in channel.stream_stream(WRITE)(requests()):
            count += 1
        assert count == 5000


async def test_small_messages_that_grpcio_gives_back_one_by_one(serve: Serve) -> None:
    """All of them are in the client before it reads the first."""
    server = await serve(**NOTHING)

    def read() -> int:
        with grpc.insecure_channel(server.addresses[0]) as channel:
            call = channel.unary_stream(SUBSCRIBE)(ask("count:3000"))
            call.initial_metadata()
            return sum(1 for _ in call)

    assert await asyncio.to_thread(read) == 3000


async def test_calls_that_grpcio_leaves(serve: Serve) -> None:
    server = await serve(**NOTHING)
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:

        async def leave() -> None:
            call = channel.unary_stream(SUBSCRIBE)(ask("flood"))
            await call.read()
            call.cancel()

        for _ in range(5):
            await asyncio.gather(*(leave() for _ in range(20)))
        assert await channel.unary_unary(PUBLISH)(b"")


async def test_calls_of_grpcio_that_run_out_of_time(serve: Serve) -> None:
    # A server that was kept from reading finds a call and its reset together.
    server = await serve(**NOTHING | {"resets": 250})
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:

        async def run_out() -> None:
            call = channel.unary_stream(SUBSCRIBE)(ask("idle"), timeout=0.2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

        for _ in range(5):
            await asyncio.gather(*(run_out() for _ in range(50)))
        assert await channel.unary_unary(PUBLISH)(b"")


async def test_a_burst_of_requests_before_the_settings_are_known(serve: Serve, dial: Dial) -> None:
    server = await serve(**NOTHING, max_streams=10)
    client = await dial(server)
    client.ack_settings = False
    calls = [client.call(ask("idle:x")) for _ in range(90)]
    for stream in calls[10:]:
        assert (await client.ended(stream)).reset == 7
    client.send(acknowledgement())
    assert await client.pong()
    assert not client.goaways
    assert server.calls == 10


async def test_a_new_request_for_each_that_was_left(serve: Serve, dial: Dial) -> None:
    """Their handlers are still ending: what is refused meanwhile is nobody's fault."""
    server = await serve(**NOTHING, max_streams=50)
    client = await dial(server)
    calls = [client.call(ask("idle:x")) for _ in range(50)]
    await client.until(lambda: all(client.answer(stream).data for stream in calls))
    client.send(*(client.rst(stream) for stream in calls))
    again = [client.call(ask("idle:x")) for _ in range(50)]
    await client.until(
        lambda: all(client.answer(s).data or client.answer(s).reset == 7 for s in again)
    )
    assert await client.pong()
    assert not client.goaways


async def test_what_is_on_its_way_for_a_stream_that_was_answered(serve: Serve, dial: Dial) -> None:
    server = await serve(**NOTHING)
    client = await dial(server)
    other = client.call(ask("idle:x"))
    head = client.headers(client.fields("/no.Such/Method"))
    client.send(head)
    assert (await client.ended(head.stream_id)).status == 12
    assert await client.pong()
    small = client.data(head.stream_id, message(b"x"), end=False)
    client.send(*[small] * 5000, client.data(head.stream_id, b""), client.rst(head.stream_id))
    assert await client.pong()
    assert not client.goaways
    assert not client.answer(other).trailers


async def test_resets_that_meet_the_end_of_a_deadline(serve: Serve, dial: Dial) -> None:
    """Both sides end the calls at once, as all do that share a deadline."""
    server = await serve(**NOTHING)
    client = await dial(server)
    calls = [client.call(ask("idle:x"), SUBSCRIBE, ("grpc-timeout", "200m")) for _ in range(80)]
    answers = [client.answer(stream) for stream in calls]
    await client.until(lambda: all(answer.data or answer.trailers for answer in answers))
    time.sleep(0.3)
    await asyncio.sleep(0)  # the loop sees that they are over, and ends them in its next turn, ...
    client.send(*(client.rst(stream) for stream in calls))  # ... where it reads this, too
    assert await client.pong()
    assert all(client.answer(stream).status == 4 for stream in calls)
    assert not client.goaways


async def test_more_for_a_stream_that_was_answered_than_its_window(
    serve: Serve, dial: Dial
) -> None:
    client = await dial(await serve(stream_window=65_535))
    head = client.headers(client.fields("/no.Such/Method"))
    client.send(head)
    assert (await client.ended(head.stream_id)).status == 12
    client.send(*[client.data(head.stream_id, bytes(16_000), end=False)] * 4)
    assert await client.pong()
    client.send(client.data(head.stream_id, bytes(2_000), end=False))
    assert await client.gone() == 3


async def test_empty_frames_for_a_stream_that_was_answered(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(empty_frames=100))
    head = client.headers(client.fields("/no.Such/Method"))
    client.send(head)
    assert (await client.ended(head.stream_id)).status == 12
    client.send(*[client.data(head.stream_id, b"", end=False)] * 130)
    assert await client.gone() == 11


def acknowledgement() -> SettingsFrame:
    frame = SettingsFrame(0)
    frame.flags.add("ACK")
    return frame
