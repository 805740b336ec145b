"""A connection that is busy for long is not a slow one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hyperframe.frame import SettingsFrame

from streamkit.generated.streamservice import StreamServiceBase, SubscribeRequest
from streamkit.transport import Framed
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import message


async def test_a_transfer_whose_chunks_never_end_with_a_frame(serve: Serve, dial: Dial) -> None:
    """TCP cuts where it likes: each chunk is the end of one frame and the start of the next."""
    client = await dial(await serve(request_timeout=0.2, preface_timeout=0.2))
    client.ack_settings = False  # nothing of its own between the pieces
    frame = client.ping().serialize()
    client.raw(frame[:5])
    loop = asyncio.get_running_loop()
    until = loop.time() + 1.0
    while loop.time() < until:
        client.raw(frame[5:] + frame[:5])
        await asyncio.sleep(0.01)
        assert not client.closed
    client.raw(frame[5:])
    assert await client.pong()


async def test_one_frame_that_comes_by_the_byte_is_a_slow_one(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(request_timeout=0.2))
    head = client.headers()
    client.send(head)
    data = client.data(head.stream_id, b"x" * 1000).serialize()
    for begin in range(200):
        client.raw(data[begin : begin + 1])
        await asyncio.sleep(0.01)
        if client.closed:
            return
    raise AssertionError("the connection was not cut")


class Burst(StreamServiceBase):
    """Every stream gets a large piece at the same moment."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go = asyncio.Event()

    async def subscribe_to_updates(  # type: ignore[override]  # ready frames
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Framed]:
        self.waiting += 1
        await self.go.wait()
        yield Framed(message(b"x" * 60_000), 1)


async def test_many_streams_at_once_are_no_flood_of_answers(serve: Serve, dial: Dial) -> None:
    """6 MB become ready in one turn of the loop, for a peer that is not reading just now."""
    burst = Burst()
    client = await dial(await serve(burst), {SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 20})
    client.send(client.window(0, 1 << 27))
    streams = [client.call() for _ in range(100)]
    while burst.waiting < 100:
        await asyncio.sleep(0)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
    burst.go.set()
    await asyncio.sleep(0.2)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a transport of sockets
    for stream in streams:
        answer = await client.ended(stream)
        assert (answer.status, len(answer.messages[0])) == (0, 60_000)
