"""When messages leave: alone at once, together when they are made together. Counted, not timed.

And where they arrive."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import Frame, GoAwayFrame, SettingsFrame

from streamkit.generated.streamservice import PublishRequest, SubscribeRequest, WriteReply
from streamkit.transport import GrpcServer
from streamkit.transport.client.attempt import WireAttempt
from streamkit.transport.client.request import ClientStream
from streamkit.transport.http2.blocks import CallHeaders
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.http2.receiver import InPlaceProtocol
from tests.transport.conftest import Dial, Serve
from tests.transport.fuzzing import LIMITS
from tests.transport.http2.test_fuzz import Refusing
from tests.transport.memory import Sink
from tests.transport.raw import PUBLISH, SUBSCRIBE, message
from tests.transport.services import TICK, Streams, Writes, ask


class Counted:
    """A transport that remembers the size of each write."""

    def __init__(self, server: GrpcServer) -> None:
        (protocol,) = server._connections
        self.sizes: list[int] = []
        self._transport = protocol.connection.transport
        protocol.connection._transport = self  # type: ignore[assignment]  # stands in for it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self.sizes.append(len(data))
        self._transport.write(data)


class Turns(Streams):
    """Each topic is a turn of the loop, which yields so many messages; after each one it is noted
    how many writes the turn has seen so far."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []
        self.seen: list[list[int]] = []

    async def subscribe_to_updates(self, subscribe_request: SubscribeRequest) -> AsyncIterator[Any]:
        for count in subscribe_request.topics:
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # what the turn before has left to do is done
            before = len(self.writes)
            found = []
            for _ in range(int(count)):
                yield TICK
                found.append(len(self.writes) - before)
            self.seen.append(found)


class Answering(Writes):
    """Notes how many writes there were when the loop came around after each request."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []
        self.seen: list[int] = []

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: self.seen.append(len(self.writes)))
        return WriteReply()


@pytest.mark.parametrize("count", [1, 5])
async def test_replies_leave_together_in_the_turn_that_makes_them(
    count: int, serve: Serve, dial: Dial
) -> None:
    answering = Answering()
    server = await serve(answering)
    client = await dial(server)
    assert await client.pong()
    answering.writes = Counted(server).sizes
    streams: list[int] = []
    frames: list[Frame] = []
    for _ in range(count):
        head = client.headers(client.fields(PUBLISH))
        streams.append(head.stream_id)
        frames += [head, client.data(head.stream_id, message(b""))]
    client.send(*frames)
    for stream in streams:
        assert (await client.ended(stream)).status == 0
    assert answering.seen == [1] * count
    assert len(answering.writes) == 1


async def test_a_caller_that_is_quick_finds_the_place_of_its_call_free(
    serve: Serve, dial: Dial
) -> None:
    """The next request comes in the moment that the end of the one before it has left."""
    answering = Answering()
    server = await serve(answering, max_streams=1)
    client = await dial(server)
    assert await client.pong()
    (protocol,) = server._connections
    body = message(b"")
    first, second = (client.headers(client.fields(PUBLISH)) for _ in range(2))
    frames: list[Frame] = [second, client.data(second.stream_id, body)]
    ready = [b"".join(frame.serialize() for frame in frames)]

    class Quick(Counted):
        def write(self, data: Any) -> None:
            super().write(data)
            if ready:
                protocol.data_received(ready.pop())

    Quick(server)
    client.send(first, client.data(first.stream_id, body))
    for head in (first, second):
        answer = await client.ended(head.stream_id)
        assert (answer.status, answer.reset) == (0, None)


async def test_a_message_that_comes_alone_leaves_in_its_own_turn(serve: Serve, dial: Dial) -> None:
    turns = Turns()
    server = await serve(turns)
    client = await dial(server)
    assert await client.pong()
    turns.writes = Counted(server).sizes
    answer = await client.ended(client.call(ask(*"111111")))
    assert len(answer.messages) == 6
    # The first leaves with the headers, when the loop comes around.
    assert turns.seen == [[0], [1], [1], [1], [1], [1]]
    assert len(turns.writes) == 7  # one for each message, and the trailers


async def test_messages_that_come_together_leave_together(serve: Serve, dial: Dial) -> None:
    turns = Turns()
    server = await serve(turns)
    client = await dial(server)
    assert await client.pong()
    turns.writes = Counted(server).sizes
    answer = await client.ended(client.call(ask(*"115511")))
    assert len(answer.messages) == 14
    # Only the first turn with several could not be known beforehand.
    assert turns.seen == [[0], [1], [1] * 5, [0] * 5, [0], [1]]
    assert len(turns.writes) == 8


async def test_streams_that_wake_together_leave_together(serve: Serve, dial: Dial) -> None:
    released = asyncio.Event()

    class Together(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Any]:
            yield TICK
            await released.wait()
            yield TICK

    server = await serve(Together())
    client = await dial(server)
    streams = [client.call(ask("x"))]
    await client.until(lambda: bool(client.answer(streams[0]).data))
    streams += [client.call(ask("x")) for _ in range(20)]
    await client.until(lambda: all(client.answer(stream).data for stream in streams))
    assert await client.pong()
    writes = Counted(server).sizes
    released.set()
    for stream in streams:
        assert len((await client.ended(stream)).messages) == 2
    assert len(writes) <= 2


async def test_a_single_reply_stays_one_write(serve: Serve, dial: Dial) -> None:
    """Also on a connection whose last message came alone."""
    server = await serve(Turns(), Writes())
    client = await dial(server)
    assert (await client.ended(client.call(ask(*"111")))).status == 0
    writes = Counted(server).sizes
    for _ in range(5):
        assert (await client.ended(client.call(b"", PUBLISH))).status == 0
    assert len(writes) == 5


async def test_what_cannot_lead_waits_for_its_turn(serve: Serve, dial: Dial) -> None:
    """Too large, or over the window: in order and whole, like everything else."""

    class Mixed(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Any]:
            for size in (10, 10, 70_000, 10, 10, 5_000, 10, 10):
                yield bytes([size % 251]) * size
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    client = await dial(await serve(Mixed()), {4: 6_000})
    stream = client.call(ask("x"))
    answer = client.answer(stream)
    while not answer.trailers:
        size = len(answer.data)
        client.send(client.window(stream, 6_000), client.window(0, 6_000))
        await client.until(lambda size=size: len(answer.data) > size or bool(answer.trailers))
    assert [len(found) for found in answer.messages] == [10, 10, 70_000, 10, 10, 5_000, 10, 10]
    assert answer.status == 0


async def test_a_message_for_a_closing_transport_is_no_fault(serve: Serve, dial: Dial) -> None:
    class Late(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Any]:
            for number in range(10):
                yield TICK
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if number == 5:
                    (protocol,) = server._connections
                    protocol.connection.transport.abort()

    server = await serve(Late())
    client = await dial(server)
    stream = client.call(ask("x"))
    await client.gone()
    assert not client.answer(stream).trailers
    async with asyncio.timeout(20):
        while server.calls:
            await asyncio.sleep(0)


async def test_the_connections_of_a_thread_receive_in_one_place(serve: Serve, dial: Dial) -> None:
    """asyncio would allocate 256 KiB for each that has something to say."""
    server = await serve()
    clients = [await dial(server) for _ in range(3)]
    assert all([await client.pong() for client in clients])
    rooms = {id(protocol._receiver.get_buffer(-1).obj) for protocol in server._connections}  # type: ignore[union-attr]  # there while it is open
    assert len(rooms) == 1

    def another() -> int:
        return id(InPlaceProtocol(next(iter(server._connections))).get_buffer(-1).obj)

    assert await asyncio.to_thread(another) not in rooms


async def test_a_peer_that_has_gone_before_the_last_words(
    serve: Serve, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    """Its socket can no more be shut: that is no fault of this side's."""
    server = await serve()
    client = await dial(server)
    assert await client.pong()

    class Gone(Counted):
        """The peer left in this turn of the loop."""

        def write_eof(self) -> None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    Gone(server)
    client.send(GoAwayFrame(0))
    await client.gone()
    async with asyncio.timeout(20):
        while server.connections:
            await asyncio.sleep(0.01)
    assert not caplog.records


def kinds(written: bytes) -> list[tuple[int, int, int]]:
    """Type, stream and flags of each frame after a client's preface."""
    found, at = [], 24
    while at < len(written):
        length = int.from_bytes(written[at : at + 3], "big")
        found.append(
            (written[at + 3], int.from_bytes(written[at + 5 : at + 9], "big"), written[at + 4])
        )
        at += 9 + length
    return found


async def requests_of_one_turn(sizes: list[int], window: int) -> list[tuple[int, int, int]]:
    """What a client writes for requests of one message, to a server that has such windows."""
    protocol = WireProtocol(Refusing(), LIMITS, client=True)
    sink = Sink(protocol)
    protocol.connection_made(sink)
    settings = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: window})
    protocol.data_received(settings.serialize())
    await asyncio.sleep(0)
    before = len(kinds(bytes(sink.written)))
    calls = []
    for size in sizes:
        call = ClientStream(
            lambda _: CallHeaders("key", [(":method", "POST"), (":path", SUBSCRIBE)]),
            lambda call: call.close(),
            subtype="proto",
            max_message=LIMITS.max_message,
            send_buffer=LIMITS.send_buffer,
        )
        call.write(bytes(size))
        call.end()
        call.start(WireAttempt(call, protocol), "authority")
        calls.append(call)
    for _ in range(3):
        await asyncio.sleep(0)
    found = kinds(bytes(sink.written))[before:]
    for call in calls:
        call.close()
    sink.close()
    await asyncio.wait_for(sink.lost.wait(), 5)
    return found


async def test_a_request_of_one_message_follows_its_headers() -> None:
    """A server that reads the headers has the request at hand, before it reads other headers."""
    assert await requests_of_one_turn([5, 0, 5], 65_535) == [
        (1, 1, 4),
        (0, 1, 1),
        (1, 3, 4),
        (0, 3, 1),
        (1, 5, 4),
        (0, 5, 1),
    ]


async def test_a_request_that_cannot_leave_at_once_waits_for_the_others() -> None:
    assert await requests_of_one_turn([20_000, 5], 65_535) == [
        (1, 1, 4),
        (1, 3, 4),
        (0, 3, 1),
        (0, 1, 0),
        (0, 1, 0),
        (0, 1, 1),
    ]
    assert await requests_of_one_turn([15], 10) == [(1, 1, 4), (0, 1, 0)]
