"""Going away: every caller learns it by a status, whatever it runs."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest

from streamkit.generated.streamservice import PublishRequest, SubscribeRequest, Update, WriteReply
from streamkit.transport import Channel, GrpcServer, context
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE, RawClient, message
from tests.transport.services import PlainCodec, Streams, Writes, ask

UNAVAILABLE = 14


async def grpcio_stream(
    channel: grpc.aio.Channel, topic: str, live: asyncio.Semaphore
) -> tuple[grpc.StatusCode, dict[str, str | bytes]]:
    """Read a stream to its end; return its status and trailers."""
    call = channel.unary_stream(SUBSCRIBE)(ask(topic))
    try:
        await call.read()
        live.release()
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), dict(error.trailing_metadata())
    return await call.code(), dict(await call.trailing_metadata())


async def streamkit_stream(
    channel: Channel, topic: str, live: asyncio.Semaphore
) -> tuple[grpc.StatusCode, dict[str, str | bytes]]:
    from streamkit.errors import StreamkitError

    request = SubscribeRequest(topics=[topic])
    async with channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request) as call:
        try:
            await call.receive()
            live.release()
            while await call.receive():
                pass
        except StreamkitError as error:
            code = next(c for c in grpc.StatusCode if c.value[0] == error.status.value)
            return code, dict(call.trailing_metadata or {})
        return grpc.StatusCode.OK, dict(call.trailing_metadata or {})


async def test_two_hundred_live_streams_end_with_a_status(serve: Serve, streams: Streams) -> None:
    notes: list[str] = []
    server = await serve(on_drain=lambda: notes.append("drain"))
    address = server.addresses[0]
    live = asyncio.Semaphore(0)
    dialled = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(10)
    ]
    own = [Channel(address, codec=PlainCodec()) for _ in range(10)]
    tasks = []
    for number in range(10):
        for topic in ["idle:x"] * 5 + ["ticks:100000:0.05"] * 5:
            tasks.append(asyncio.create_task(grpcio_stream(dialled[number], topic, live)))
            tasks.append(asyncio.create_task(streamkit_stream(own[number], topic, live)))
    for _ in tasks:
        await live.acquire()
    assert server.calls == 200
    async with asyncio.timeout(50):  # it does not wait for its grace
        await server.drain(100)
    ends = await asyncio.gather(*tasks)
    codes = {code for code, _ in ends}
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    assert all(trailers["streamkit-reconnect"] == "1" for _, trailers in ends)
    assert len(streams.closed) == 200
    assert notes == ["drain"]
    assert server.connections == 0
    await asyncio.wait_for(server.wait_closed(), 20)
    print("200 live streams, 0 without a status, drained")
    for channel in dialled:
        await channel.close()
    for other in own:
        await other.aclose()


async def test_unary_calls_may_finish(serve: Serve, dial: Dial) -> None:
    class Slow(Writes):
        started = asyncio.Event()

        async def publish(self, publish_request: PublishRequest) -> WriteReply:
            self.started.set()
            await asyncio.sleep(0.2)
            return WriteReply()

    slow = Slow()
    server = await serve(slow)
    client = await dial(server)
    stream = client.call(b"", PUBLISH)
    await slow.started.wait()
    drain = asyncio.create_task(server.drain(3))
    answer = await client.ended(stream)
    assert answer.status == 0
    assert await client.gone() == 0
    await drain


async def test_a_finite_stream_may_finish(serve: Serve, dial: Dial) -> None:
    class Finite(Streams):
        async def subscribe_to_updates(self, subscribe_request: SubscribeRequest):  # type: ignore[no-untyped-def]  # as many write it
            context().finite = True
            for _ in range(20):
                yield Update(topic="t")
                await asyncio.sleep(0.01)

    server = await serve(Finite())
    client = await dial(server)
    stream = client.call(ask("x"))
    await client.until(lambda: bool(client.answer(stream).data))
    drain = asyncio.create_task(server.drain(3))
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 20)
    await drain


async def test_what_outlives_the_grace_ends_then(serve: Serve, dial: Dial) -> None:
    class Endless(Writes):
        started = asyncio.Event()

        async def publish(self, publish_request: PublishRequest) -> WriteReply:
            self.started.set()
            await asyncio.Event().wait()
            return WriteReply()

    endless = Endless()
    server = await serve(endless)
    client = await dial(server)
    stream = client.call(b"", PUBLISH)
    await endless.started.wait()
    async with asyncio.timeout(50):
        await server.drain(0.5)
    assert (await client.ended(stream)).status == UNAVAILABLE


async def test_a_handler_that_swallows_cancellation_does_not_hold_the_server(
    serve: Serve, dial: Dial
) -> None:
    class Stubborn(Streams):
        over = asyncio.Event()

        async def subscribe_to_updates(self, subscribe_request: SubscribeRequest):  # type: ignore[no-untyped-def]  # as many write it
            yield Update(topic="t")
            while not self.over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)

    stubborn = Stubborn()
    server = await serve(stubborn)
    client = await dial(server)
    stream = client.call(ask("x"))
    await client.until(lambda: bool(client.answer(stream).data))
    async with asyncio.timeout(50):
        await server.drain(0.3)
    stubborn.over.set()
    await client.gone()


async def test_new_calls_are_refused_and_may_be_repeated(serve: Serve, dial: Dial) -> None:
    class Slow(Writes):
        async def publish(self, publish_request: PublishRequest) -> WriteReply:
            await asyncio.sleep(0.3)
            return WriteReply()

    server = await serve(Slow())
    client = await dial(server)
    stream = client.call(b"", PUBLISH)
    assert await client.pong()
    drain = asyncio.create_task(server.drain(3))
    await client.until(lambda: len(client.goaways) == 1)
    # On its way while the first GOAWAY was: still served.
    early = client.call(b"", PUBLISH)
    # The final GOAWAY follows: what comes now was never looked at.
    await client.until(lambda: len(client.goaways) == 2)
    late = client.call(b"", PUBLISH)
    assert (await client.ended(late)).reset == 7
    assert client.goaways[-1].last_stream_id in (stream, early)
    assert (await client.ended(stream)).status == 0
    await drain
    with pytest.raises(OSError):
        await RawClient().connect(f"127.0.0.1:{client.writer.get_extra_info('peername')[1]}")


async def test_a_stalled_client_does_not_hold_the_server(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server, {4: 2**31 - 1})
    client.send(client.window(0, 2**30))
    client.stop_reading()
    client.call(ask("flood"))
    (protocol,) = server._connections
    async with asyncio.timeout(5):
        while protocol.connection.writable:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(50):
        await server.drain(0.5)
    assert server.connections == 0


async def test_closing_tells_the_callers_too(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server)
    live = client.call(ask("idle:x"))
    head = client.headers(client.fields(WRITE))
    client.send(head, client.data(head.stream_id, message(b""), end=False))
    await client.until(lambda: bool(client.answer(head.stream_id).data))
    await server.close()
    await server.close()
    for stream in (live, head.stream_id):
        assert (await client.ended(stream)).status == UNAVAILABLE
    assert await client.gone() == 0


async def test_a_server_with_idle_clients_ends(serve: Serve, dial: Dial) -> None:
    """On Python 3.13 asyncio's own wait_closed waits for every connection."""
    server: GrpcServer = await serve()
    clients = [await dial(server) for _ in range(5)]
    for client in clients:
        assert await client.pong()
    await asyncio.wait_for(server.drain(100), 50)


async def test_a_call_late_in_the_idle_time_begins_it_anew(serve: Serve, dial: Dial) -> None:
    server = await serve(max_connection_idle=3600.0)
    client = await dial(server)
    assert await client.pong()
    (aging,) = server._connections.values()
    stream = client.call(ask("count:1"))
    await client.ended(stream)
    aging._check_idle(0)  # the time since the connection began is over
    assert await client.pong()
    assert not client.goaways
    aging._check_idle(1)  # the time since is, too
    await client.gone()
    assert client.goaways
