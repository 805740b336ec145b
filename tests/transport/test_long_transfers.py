"""A connection that is busy for long is not a slow one."""

from __future__ import annotations

import asyncio

from tests.transport.conftest import Dial, Serve


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
