"""What a hostile peer can try: each attack ends that peer's connection and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame, SettingsFrame

from streamkit.transport import GrpcServer
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PREFACE, SUBSCRIBE, RawClient, message
from tests.transport.services import Streams, ask

CALM = 11
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 1, 3, 6, 9


async def bystander(server: GrpcServer, dial: Dial) -> tuple[RawClient, int]:
    """A client with a live stream that must not notice anything."""
    client = await dial(server)
    stream = client.call(ask("idle:x"))
    await client.until(lambda: bool(client.answer(stream).data))
    return client, stream


async def unharmed(client: RawClient, stream: int) -> None:
    assert await client.pong()
    answer = client.answer(stream)
    assert not answer.trailers
    assert answer.reset is None
    again = client.call(ask("count:3"))
    assert len((await client.ended(again)).messages) == 3


async def flooded(client: RawClient, chunk: Callable[[], bytes], most: int = 200) -> int | None:
    """Send chunks until the server cuts the connection; return the code of its GOAWAY."""
    for _ in range(most):
        if client.closed:
            break
        client.raw(chunk())
        await client.writer.drain()
        await asyncio.sleep(0)
    return await client.gone()


async def test_rapid_reset(serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    client = await dial(server)
    sent = 0
    body = message(ask("idle"))

    def chunk() -> bytes:
        nonlocal sent
        sent += 1
        head = client.headers()
        frames = (head, client.data(head.stream_id, body), client.rst(head.stream_id))
        return b"".join(frame.serialize() for frame in frames)

    try:
        code = await flooded(client, chunk, 1000)
    except ConnectionError:
        code = await client.gone()
    assert code == CALM
    assert sent <= 300
    await unharmed(*other)
    assert server.calls == 1


async def test_made_you_reset_by_window_overflow(serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    client = await dial(server)
    body = message(ask("idle"))

    def chunk() -> bytes:
        head = client.headers()
        stream = head.stream_id
        frames = (head, client.data(stream, body), client.window(stream, 2**31 - 1))
        return b"".join(frame.serialize() for frame in frames)

    assert await flooded(client, chunk, 300) == CALM
    await unharmed(*other)
    assert server.calls == 1


async def test_made_you_reset_by_malformed_requests(serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    client = await dial(server)

    def chunk() -> bytes:
        return client.headers([(":method", "POST"), ("connection", "x")]).serialize()

    assert await flooded(client, chunk, 300) == CALM
    await unharmed(*other)


FLOODS = {
    "pings": b"\0\0\x08\x06\0\0\0\0\0" + b"x" * 8,
    "settings": SettingsFrame(0).serialize(),
    "settings that change windows": b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff",
    "window updates": b"\0\0\4\x08\0\0\0\0\0\0\0\0\1",
    "empty data": b"\0\0\0\0\0\0\0\0\1",
    "empty padded data": b"\0\0\1\0\x08\0\0\0\1\0",
    "unknown frames": b"\0\0\4\xee\0\0\0\0\0abcd",
    "resets of streams that never were": b"\0\0\4\3\0\0\0\0\3\0\0\0\x08",
    "answers to no ping": b"\0\0\x08\x06\1\0\0\0\0" + b"x" * 8,
    "answers to no settings": b"\0\0\0\x04\1\0\0\0\0",
    "goodbyes": b"\0\0\x08\x07\0\0\0\0\0" + bytes(8),
    "priority": b"\0\0\5\x02\0\0\0\0\1\0\0\0\0\x10",
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
async def test_floods(name: str, reading: bool, serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    client = await dial(server)
    head = client.headers(client.fields("/streamservice.ProducerService/Write"))
    assert head.stream_id == 1
    client.send(head)
    assert await client.pong()
    if not reading:
        client.stop_reading()
    port = client.writer.get_extra_info("sockname")[1]
    protocols = list(server._connections)
    protocol = next(p for p in protocols if p.connection.peer_name.endswith(f":{port}"))
    largest = 0
    flood = FLOODS[name] * 1000
    started = time.process_time()
    try:
        for _ in range(100):
            client.raw(flood)
            await client.writer.drain()
            await asyncio.sleep(0)
            largest = max(largest, protocol.connection.transport.get_write_buffer_size())
            if protocol.connection.dead:
                break
    except ConnectionError:
        pass
    assert protocol.connection.dead or protocol.connection.is_closing()
    assert largest <= 1 << 20
    assert time.process_time() - started < 5
    client.read_again()
    assert await client.gone() == CALM
    await unharmed(*other)


async def test_the_encoder_table_is_clamped(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server, {1: 2**31})
    client.decoder.max_allowed_table_size = 2**31
    stream = client.call(ask("count:1"))
    assert (await client.ended(stream)).status == 0
    (protocol,) = server._connections
    assert protocol.connection.h2.encoder.header_table_size == 4096


async def test_a_continuation_flood(serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    for size in (0, 1, 4000):
        client = await dial(server)
        head = HeadersFrame(1)
        head.data = b"\x82"
        client.send(head)
        more = ContinuationFrame(1)
        more.data = b"\x82" * size
        chunk = more.serialize() * 20
        code = await flooded(client, partial(bytes, chunk))
        assert code in (CALM, PROTOCOL_ERROR)
    await unharmed(*other)


async def test_a_header_bomb(serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    client = await dial(server)
    # One large field in the table, then thousands of references to it.
    big = client.encoder.encode([(b"x-bomb", b"y" * 3000)])
    head = HeadersFrame(1)
    head.data = big + b"\xbe" * 10_000
    head.flags.add("END_HEADERS")
    client.send(head)
    assert await client.gone() == CALM
    await unharmed(*other)


async def test_headers_that_are_too_many_for_a_call(serve: Serve, dial: Dial) -> None:
    """As many as any client sends by mistake: that call is refused, the others go on."""
    server = await serve()
    client = await dial(server)
    live = client.call(ask("idle:x"))
    await client.until(lambda: bool(client.answer(live).data))
    stream = client.call(ask("x"), SUBSCRIBE, ("debug", "x" * 70_000))
    assert (await client.ended(stream)).status == 8
    await unharmed(client, live)


async def test_a_header_block_that_cannot_be_decoded(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    head = HeadersFrame(1)
    head.data = b"\xff\xff\xff\xff\xff\xff"
    head.flags.add("END_HEADERS")
    client.send(head)
    assert await client.gone() == COMPRESSION_ERROR


@pytest.mark.parametrize(
    "first",
    [b"", b"PRI", PREFACE[:-1], PREFACE, PREFACE + b"\0\0\6\4\0\0\0\0\0\0\4"],
    ids=["nothing", "a word", "most of it", "no settings", "half the settings"],
)
async def test_slowloris_before_the_settings(first: bytes, serve: Serve, dial: Dial) -> None:
    server = await serve(preface_timeout=0.2)
    started = time.monotonic()
    client = await dial(server, hello=False)
    client.ack_settings = False
    client.raw(first)
    await client.gone()
    assert 0.15 < time.monotonic() - started < 8  # ten where nothing else is said
    async with asyncio.timeout(20):
        while server.connections:
            await asyncio.sleep(0.01)


async def test_slowloris_byte_by_byte(serve: Serve, dial: Dial) -> None:
    server = await serve(preface_timeout=0.3)
    client = await dial(server, hello=False)
    client.ack_settings = False
    for byte in PREFACE:
        if client.closed:
            break
        client.raw(bytes([byte]))
        await asyncio.sleep(0.03)
    assert client.closed


async def test_slowloris_inside_a_frame(serve: Serve, dial: Dial) -> None:
    server = await serve(request_timeout=0.2)
    other = await bystander(server, dial)
    for half in (
        b"\0\0\x10\1",
        b"\0\0\x10\1\4\0\0\0\1abc",
        b"\0\0\1\1\0\0\0\0\1\x82",
        b"\0\0\x08\6\0\0\0\0\0ab",
    ):
        client = await dial(server)
        assert await client.pong()
        client.raw(half)
        await client.gone(8)  # ten seconds where nothing else is said
    await unharmed(*other)


async def test_a_large_frame_on_a_slow_line_is_no_attack(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(request_timeout=0.2))
    head = client.headers(client.fields("/streamservice.ProducerService/Write"))
    body = client.data(head.stream_id, message(b"\x12\x00")).serialize()
    client.send(head)
    assert await client.pong()
    client.raw(body[:9])  # its head at once: half a head would be waited for
    for byte in body[9:]:
        await asyncio.sleep(0.06)
        client.raw(bytes([byte]))
    assert (await client.ended(head.stream_id)).data
    client.raw(body[:5])
    await client.gone(8)


@pytest.mark.parametrize(
    ("greeting", "noted"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1 instead of HTTP/2"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
            "TLS instead of plain HTTP/2",
        ),
        (b"SSH-2.0-OpenSSH_9.0\r\n", "not HTTP/2"),
        (b"\0" * 100, "not HTTP/2"),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + b"x" * 20, "not HTTP/2"),
    ],
)
async def test_another_protocol(
    greeting: bytes, noted: str, serve: Serve, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve()
    client = await dial(server, hello=False)
    client._on_frame = lambda frame: None  # type: ignore[method-assign]  # deaf to what comes
    client.raw(greeting)
    await client.gone()
    async with asyncio.timeout(20):
        while server.connections:
            await asyncio.sleep(0.01)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"connection cut: {noted}, peer ipv4:127.0.0.1:")


async def test_a_flood_of_one_kind_hides_no_other(
    serve: Serve, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve()
    other, stream = await bystander(server, dial)
    for _ in range(50):
        client = await dial(server, hello=False)
        client._on_frame = lambda frame: None  # type: ignore[method-assign]  # deaf to what comes
        client.raw(b"GET / HTTP/1.1\r\n\r\n")
        await client.gone()
    client = await dial(server)
    client.raw(b"\0\0\1\1\4\0\0\0\1\xff")
    assert await client.gone() == COMPRESSION_ERROR
    *flood, last = [record.getMessage() for record in caplog.records]
    assert all("HTTP/1 instead of HTTP/2" in line for line in flood)
    assert 1 <= len(flood) < 25  # one, on a machine that does this within five seconds
    assert "header block cannot be decoded" in last
    await unharmed(other, stream)


async def test_zero_windows_hold_little_and_end(serve: Serve, dial: Dial, streams: Streams) -> None:
    server = await serve(stall_timeout=0.3)
    other = await bystander(server, dial)
    client = await dial(server, {4: 0})
    calls = [client.call(ask("flood")) for _ in range(20)]
    await client.until(lambda: streams.started == 21)
    await client.pong()
    held = [
        stream.pending_size
        for protocol in server._connections
        for stream in protocol.processor.streams.values()
    ]
    assert max(held) < 70_000
    for stream in calls:
        answer = await client.ended(stream)
        assert answer.status == 8
        assert not answer.data
    await unharmed(*other)
    assert server.calls == 1


async def test_a_window_of_one_byte(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(), {4: 1})
    stream = client.call(ask("count:2"))
    seen = 0
    while not client.answer(stream).trailers:
        await client.until(
            lambda n=seen: (
                len(client.answer(stream).data) > n or bool(client.answer(stream).trailers)
            )
        )
        seen = len(client.answer(stream).data)
        client.send(client.window(stream, 1))
    assert len(client.answer(stream).messages) == 2


async def test_data_asked_for_byte_by_byte(serve: Serve, dial: Dial) -> None:
    server = await serve()
    other = await bystander(server, dial)
    client = await dial(server, {4: 0})
    stream = client.call(ask("flood"))
    dribble = client.window(stream, 1).serialize()
    started = time.monotonic()
    code = await flooded(client, lambda: dribble * 100, 1000)
    assert code == CALM
    # Ten thousand at once, regained over ten seconds, and a little by what was sent.
    allowed = 10_000 + 1_000 * (time.monotonic() - started)
    assert len(client.answer(stream).data) < 1.1 * allowed
    await unharmed(*other)


async def test_requests_over_the_limit_again_and_again(serve: Serve, dial: Dial) -> None:
    server = await serve(max_streams=2)
    other = await bystander(server, dial)
    client = await dial(server)
    live = [client.call(ask("idle:x")) for _ in range(2)]
    await client.until(lambda: bool(client.answer(live[1]).data))
    code = await flooded(client, lambda: client.headers().serialize(), 3000)
    assert code == CALM
    await unharmed(*other)


async def test_windows_that_shrink_below_zero(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(), {4: 50_000})
    stream = client.call(ask("big:100000"))
    await client.until(lambda: len(client.answer(stream).data) == 50_000)
    smaller = SettingsFrame(0)
    smaller.settings = {4: 10}
    client.send(smaller)
    assert await client.pong()
    client.send(client.window(stream, 49_990))
    assert await client.pong()
    assert len(client.answer(stream).data) == 50_000
    client.send(client.window(stream, 100_000), client.window(0, 100_000))
    assert (await client.ended(stream)).status == 0


async def test_a_peer_that_exceeds_its_window_is_cut(serve: Serve, dial: Dial) -> None:
    server = await serve(stream_window=65_535)
    client = await dial(server)
    head = client.headers(client.fields("/streamservice.ProducerService/Write"))
    client.send(head, *[client.data(1, bytes(16_384), end=False) for _ in range(5)])
    assert await client.gone() == FLOW_CONTROL_ERROR


async def test_a_frame_over_the_limit_is_cut_by_its_head(serve: Serve, dial: Dial) -> None:
    server = await serve()
    for kind, length in (
        (0, (1 << 20) + 1),
        (1, 300_000),
        (4, 20_000),
        (9, 2**24 - 1),
        (200, 2**24 - 1),
        (2, 4),  # a priority has five bytes
        (2, 6),
    ):
        client = await dial(server)
        assert await client.pong()
        client.raw(length.to_bytes(3, "big") + bytes([kind, 0]) + (1).to_bytes(4, "big"))
        assert await client.gone() == FRAME_SIZE_ERROR


async def test_what_is_cut_is_named(
    serve: Serve, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    client = await dial(await serve())
    client.send(client.window(7, 1))
    assert await client.gone() == PROTOCOL_ERROR
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("connection cut: NoSuchStreamError: stream 7, peer ipv4:127.0.0.1:")


async def test_a_priority_of_no_stream(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    client.raw(b"\0\0\5\2\0\0\0\0\0" + bytes(5))
    assert await client.gone() == PROTOCOL_ERROR


async def test_bytes_one_by_one_are_not_copied_over_and_over(serve: Serve, dial: Dial) -> None:
    """A megabyte in a padded frame must be collected; a dribble may not cost its square."""
    server = await serve()
    client = await dial(server)
    head = client.headers(client.fields("/streamservice.ProducerService/Write"))
    client.send(head)
    assert await client.pong()
    (protocol,) = server._connections
    frame = client.data(1, bytes(1_000_000), padding=1).serialize()
    started = time.thread_time()
    for position in range(0, 200_000, 10):
        protocol.data_received(frame[position : position + 10])
    assert time.thread_time() - started < 2.0


async def test_a_thousand_streams_that_declare_much_cost_little(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server)
    body = b"\0\0\x3f\xff\xff" + bytes(100)  # just below the limit
    for _ in range(500):
        head = client.headers(client.fields(SUBSCRIBE))
        client.send(head, client.data(head.stream_id, body, end=False))
    assert await client.pong()
    (protocol,) = server._connections
    held = sum(s.messages_in.size for s in protocol.processor.streams.values())
    assert server.calls == 500
    assert held == 500 * 105
