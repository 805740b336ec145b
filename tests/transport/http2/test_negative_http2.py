"""gRPC's negative HTTP/2 cases with the roles exchanged: a client that misbehaves by the book."""

from __future__ import annotations

import asyncio

from hyperframe.frame import GoAwayFrame, PingFrame

from tests.transport.conftest import Dial, Serve
from tests.transport.raw import WRITE, message
from tests.transport.services import Streams, ask


async def test_goaway(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server)
    stream = client.call(ask("ticks:10"))
    await client.until(lambda: bool(client.answer(stream).data))
    away = GoAwayFrame(0)
    client.send(away)
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 10)
    await client.gone()
    second = await dial(server)
    assert (await second.ended(second.call(ask("count:1")))).status == 0


async def test_rst_after_header(serve: Serve, dial: Dial, streams: Streams) -> None:
    server = await serve()
    client = await dial(server)
    head = client.headers()
    client.send(head)
    assert await client.pong()
    client.send(client.rst(head.stream_id))
    assert await client.pong()
    assert server.calls == 0
    assert (await client.ended(client.call(ask("count:1")))).status == 0


async def test_rst_during_data(serve: Serve, dial: Dial, streams: Streams) -> None:
    server = await serve()
    client = await dial(server)
    head = client.headers()
    body = message(ask("idle"))
    client.send(head, client.data(head.stream_id, body[:4], end=False), client.rst(head.stream_id))
    client.send(client.data(head.stream_id, body[4:]))
    assert await client.pong()
    assert server.calls == 0
    assert (await client.ended(client.call(ask("count:1")))).status == 0


async def test_rst_after_data(serve: Serve, dial: Dial, streams: Streams) -> None:
    server = await serve()
    client = await dial(server)
    stream = client.call(ask("idle:x"))
    await client.until(lambda: bool(client.answer(stream).data))
    client.send(client.rst(stream))
    async with asyncio.timeout(20):
        while not streams.closed:
            streams.changed.clear()
            await streams.changed.wait()
    assert await client.pong()
    assert server.calls == 0


async def test_data_after_the_end(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    stream = client.call(ask("idle:x"))
    await client.until(lambda: bool(client.answer(stream).data))
    client.send(client.data(stream, message(ask("count:1"))))
    answer = await client.ended(stream)
    assert answer.reset == 5, "STREAM_CLOSED"


async def test_ping(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    stream = client.call(ask("ticks:10"))
    for _ in range(10):
        assert await client.pong()
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 10)
    acks = [f for f in client.frames if isinstance(f, PingFrame) and "ACK" in f.flags]
    assert len(acks) == 10


async def test_max_streams(serve: Serve, dial: Dial) -> None:
    server = await serve(max_streams=1)
    client = await dial(server)
    for _ in range(10):
        assert (await client.ended(client.call(ask("count:1")))).status == 0
    live = client.call(ask("idle:x"))
    await client.until(lambda: bool(client.answer(live).data))
    over = client.call(ask("count:1"))
    assert (await client.ended(over)).reset == 7
    client.send(client.rst(live))
    assert await client.pong()
    assert (await client.ended(client.call(ask("count:1")))).status == 0


async def test_no_df_padding_sanity(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    head = client.headers(client.fields(WRITE))
    frames = [client.data(head.stream_id, byte, end=False) for byte in cut_up(message(b""))]
    client.send(head, *frames, client.data(head.stream_id, b""))
    answer = await client.ended(head.stream_id)
    assert (answer.status, len(answer.messages)) == (0, 1)


async def test_data_frame_padding(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    head = client.headers(client.fields(WRITE))
    frames = [
        client.data(head.stream_id, byte, end=False, padding=number % 256)
        for number, byte in enumerate(cut_up(message(b"") * 60))
    ]
    client.send(head, *frames, client.data(head.stream_id, b"", padding=255))
    answer = await client.ended(head.stream_id)
    assert (answer.status, len(answer.messages)) == (0, 60)


def cut_up(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
