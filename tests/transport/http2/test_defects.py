"""The faults of a stock grpclib server, one by one: none of them is here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from streamkit.errors import NotFoundError
from streamkit.generated.streamservice import (
    PublishRequest,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.transport import Channel, GrpcServer, context
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE, RawClient, message
from tests.transport.services import PlainCodec, Streams, Writes, ask

INTERNAL, UNAVAILABLE, EXHAUSTED, DEADLINE, REFUSED_STREAM = 13, 14, 8, 4, 7
PROTOCOL_ERROR, STREAM_CLOSED = 1, 5


async def test_an_empty_data_frame_is_not_the_end(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    body = message(ask("count:2"))
    head = client.headers()
    stream = head.stream_id
    client.send(head, client.data(stream, b"", end=False))
    for byte in body[:-1]:
        client.send(client.data(stream, bytes([byte]), end=False))
        client.send(client.data(stream, b"", end=False))
    client.send(client.data(stream, body[-1:], end=False), client.data(stream, b""))
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 2)


async def test_padding_of_empty_frames_is_given_back(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server)
    head = client.headers(client.fields(WRITE))
    stream = head.stream_id
    client.send(head)
    for _ in range(100):
        client.send(client.data(stream, b"", end=False, padding=255))
    client.send(client.data(stream, message(b""), padding=0))
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 1)
    window = connection_of(server).h2._inbound_flow_control_window_manager
    assert window.max_window_size - window.current_window_size == window._bytes_processed


def connection_of(server: GrpcServer) -> Any:
    (protocol,) = server._connections
    return protocol.connection


async def test_streams_reset_before_they_start_leave_nothing(serve: Serve, dial: Dial) -> None:
    server = await serve(resets=10_000)
    client = await dial(server)
    body = message(ask("idle", client="y" * 1000))
    for _ in range(10):
        frames: list[Frame] = []
        for _ in range(200):
            head = client.headers()
            rst = client.rst(head.stream_id)
            frames += [head, client.data(head.stream_id, body), rst]
        client.send(*frames)
        assert await client.pong()
    connection = connection_of(server)
    assert server.calls == 0
    assert not connection.h2.streams
    window = connection.h2._inbound_flow_control_window_manager
    assert window.max_window_size - window.current_window_size == window._bytes_processed
    assert len(connection.h2._closed_streams) <= 1024


async def test_one_unread_stream_does_not_block_the_others(serve: Serve, dial: Dial) -> None:
    class Deaf(Writes):
        async def write(
            self, write_request_iterator: AsyncIterator[WriteRequest]
        ) -> AsyncIterator[WriteReply]:
            if context().metadata.get("deaf"):
                await asyncio.Event().wait()
            async for _ in write_request_iterator:
                yield WriteReply()

    server = await serve(
        Deaf(), stream_window=65_535, connection_window=131_072, connection_buffer=1 << 20
    )
    client = await dial(server)
    for _ in range(8):
        head = client.headers(client.fields(WRITE, ("deaf", "1")))
        client.send(head, client.data(head.stream_id, message(bytes(60_000)), end=False))
        assert await client.pong()
    head = client.headers(client.fields(WRITE))
    stream = head.stream_id
    client.send(head)
    body = message(bytes(WriteRequest(updates=[Update(message="x" * 60_000)])))
    for number in range(10):
        client.send(client.data(stream, body, end=number == 9))
        await client.until(lambda n=number: len(client.answer(stream).data) > 5 * n)
    assert len((await client.ended(stream)).messages) == 10


async def test_unread_bytes_of_a_connection_are_bounded(serve: Serve, dial: Dial) -> None:
    class Deaf(Writes):
        async def write(
            self, write_request_iterator: AsyncIterator[WriteRequest]
        ) -> AsyncIterator[WriteReply]:
            await asyncio.Event().wait()
            yield WriteReply()

    server = await serve(
        Deaf(), stream_window=65_535, connection_window=65_535, connection_buffer=100_000
    )
    client = await dial(server)
    for _ in range(8):
        head = client.headers(client.fields(WRITE))
        client.send(head, client.data(head.stream_id, bytes(16_000), end=False))
        assert await client.pong()
    window = connection_of(server).h2._inbound_flow_control_window_manager
    # 128,000 bytes came: 100,000 are held and given back, the rest is held against the window.
    owed = window.max_window_size - window.current_window_size - window._bytes_processed
    assert owed == 32_000  # two whole frames: each is counted when it arrives


async def test_a_client_that_goes_away_keeps_its_streams(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    client = await dial(await serve())
    stream = client.call(ask("ticks:20"))
    await client.until(lambda: bool(client.answer(stream).data))
    away = GoAwayFrame(0)
    client.send(away)
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 20)
    assert await client.gone() is None or not client.goaways[-1].error_code


@pytest.mark.parametrize("size", [(4 << 20) + 1, 1 << 30, (1 << 32) - 1])
async def test_a_message_over_the_limit_is_refused_by_its_prefix(
    size: int, serve: Serve, dial: Dial
) -> None:
    server = await serve()
    client = await dial(server)
    for path in (SUBSCRIBE, PUBLISH, WRITE):
        head = client.headers(client.fields(path))
        prefix = b"\0" + size.to_bytes(4, "big")
        client.send(head, client.data(head.stream_id, prefix, end=False))
        answer = await client.ended(head.stream_id)
        assert answer.status == EXHAUSTED
        assert "limit" in answer.message
    await client.until(lambda: server.calls == 0)


async def test_what_follows_an_oversized_prefix_is_dropped(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server)
    head = client.headers(client.fields(WRITE))
    client.send(head, client.data(head.stream_id, b"\0\xff\xff\xff\xff", end=False))
    for _ in range(60):
        client.send(client.data(head.stream_id, bytes(16_000), end=False))
    assert (await client.ended(head.stream_id)).status == EXHAUSTED
    assert await client.pong()
    connection = connection_of(server)
    assert connection._unread == 0
    window = connection.h2._inbound_flow_control_window_manager
    assert window.max_window_size - window.current_window_size == window._bytes_processed


async def test_a_message_larger_than_the_windows_arrives(serve: Serve, dial: Dial) -> None:
    server = await serve(stream_window=65_535, connection_window=65_535)
    client = await dial(server)
    payload = bytes(PublishRequest(updates=[Update(message="x" * 1_000_000)]))
    body = message(payload)
    head = client.headers(client.fields(PUBLISH))
    client.send(head)
    window, position, seen = 65_535, 0, 0
    while position < len(body):
        size = min(window, 16_384, len(body) - position)
        if size <= 0:
            await client.until(lambda n=seen: len(client.frames) > n)
        else:
            chunk = body[position : position + size]
            position += size
            window -= size
            client.send(client.data(head.stream_id, chunk, end=position == len(body)))
        fresh, seen = client.frames[seen:], len(client.frames)
        updates = [f for f in fresh if isinstance(f, WindowUpdateFrame)]
        window += sum(f.window_increment for f in updates if f.stream_id == head.stream_id)
    answer = await client.ended(head.stream_id)
    assert answer.status == 0


async def test_a_deadline_ends_the_call_and_not_the_task(serve: Serve, dial: Dial) -> None:
    seen: list[int] = []

    async def watch(ctx: Any, call_next: Any) -> None:
        try:
            await call_next(ctx)
        finally:
            # A clean-up may wait, and have its own timeouts.
            async with asyncio.timeout(20):
                await asyncio.sleep(0.01)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(1)
            seen.append(1)

    client = await dial(await serve(interceptors=[watch]))
    stream = client.call(ask("idle:x"), SUBSCRIBE, ("grpc-timeout", "50m"))
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (DEADLINE, 1)
    assert seen == [1]


async def test_a_deadline_goes_past_a_closed_window(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    client = await dial(await serve(), {4: 100})
    stream = client.call(ask("flood"), SUBSCRIBE, ("grpc-timeout", "100m"))
    answer = await client.ended(stream)
    assert answer.status == DEADLINE
    assert len(answer.data) == 100
    assert len(streams.closed) == 1


async def test_a_listener_is_asked_for_signs_of_life(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(keepalive_time=0.05, keepalive_timeout=5.0))
    stream = client.call(ask("idle"))

    def pings() -> int:
        return sum(isinstance(f, PingFrame) and "ACK" not in f.flags for f in client.frames)

    await client.until(lambda: pings() >= 14)
    assert not client.closed
    assert not client.answer(stream).trailers


async def test_a_peer_without_signs_of_life_is_dropped(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    server = await serve(keepalive_time=0.1, keepalive_timeout=0.1)
    for topic in ("idle", "flood"):
        client = await dial(server)
        client.stop_reading()  # and so it answers nothing either
        client.call(ask(topic))
        done = len(streams.closed)
        async with asyncio.timeout(15):  # from 20 s on where nothing else is said
            while len(streams.closed) == done:
                streams.changed.clear()
                await streams.changed.wait()
    assert server.calls == 0


async def test_a_stalled_stream_is_ended_and_its_connection_goes_on(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    client = await dial(await serve(stall_timeout=0.2), {4: 1000})
    stream = client.call(ask("flood"))
    answer = await client.ended(stream)
    assert answer.status == EXHAUSTED
    assert "took nothing" in answer.message
    assert len(streams.closed) == 1
    stream = client.call(ask("count:1"))
    assert (await client.ended(stream)).status == 0


async def test_a_stalled_connection_is_dropped(serve: Serve, dial: Dial, streams: Streams) -> None:
    client = await dial(await serve(stall_timeout=0.2), {4: 2**31 - 1})
    client.send(client.window(0, 2**30))
    client.call(ask("flood"))
    client.stop_reading()
    async with asyncio.timeout(3):
        while not streams.closed:
            streams.changed.clear()
            await streams.changed.wait()


async def test_a_slow_reader_is_no_stalled_reader(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    client = await dial(await serve(stall_timeout=0.2), {4: 500})
    stream = client.call(ask("flood"))
    for number in range(10):
        await asyncio.sleep(0.08)
        client.send(client.window(stream, 10))
        await client.until(lambda n=number: len(client.answer(stream).data) >= 510 + 10 * n)
    assert not client.answer(stream).trailers


async def test_a_cancelled_future_in_a_handler_is_an_error_of_the_handler(
    serve: Serve, dial: Dial
) -> None:
    client = await dial(await serve())
    answer = await client.ended(client.call(ask("inner-cancel")))
    assert answer.status == INTERNAL


async def test_unknown_frames_are_passed_over(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    stream = client.next_id
    for kind in (0x0A, 0x0C, 0x10, 0x0B, 0xFA, 0xFF):
        for target in (0, stream):
            client.raw(b"\0\0\4" + bytes([kind, 0xFF]) + target.to_bytes(4, "big") + b"abcd")
    stream = client.call(ask("count:1"))
    assert (await client.ended(stream)).status == 0


async def test_a_stream_over_the_limit_is_refused_alone(serve: Serve, dial: Dial) -> None:
    server = await serve(max_streams=10)
    client = await dial(server)
    live = [client.call(ask("idle:x")) for _ in range(10)]
    over = [client.call(ask("idle:x")) for _ in range(5)]
    for stream in over:
        assert (await client.ended(stream)).reset == REFUSED_STREAM
    assert client.settings[3] == 10
    for stream in live:
        await client.until(lambda s=stream: bool(client.answer(s).data))
    client.send(client.rst(live[0]))
    assert await client.pong()
    again = client.call(ask("count:1"))
    assert (await client.ended(again)).status == 0
    assert server.calls == 9


@pytest.mark.parametrize("wrong", [2, 3], ids=["even", "lower"])
async def test_streams_have_odd_numbers_that_grow(serve: Serve, dial: Dial, wrong: int) -> None:
    client = await dial(await serve())
    client.next_id = 7
    assert (await client.ended(client.call(ask("count:1")))).status == 0
    client.send(client.headers(stream=wrong, end=True))
    assert await client.gone() in (PROTOCOL_ERROR, STREAM_CLOSED)


async def test_bad_input_is_one_line_in_the_log(
    serve: Serve, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve()
    with caplog.at_level(logging.DEBUG):
        for _ in range(20):
            client = await dial(server)
            client.raw(b"\0\0\1\6\0\0\0\0\0\n")  # a PING of one byte
            await client.gone()
        client = await dial(server)
        for body in (b"\0\0", message(b"\xff"), message(b"", 1), b""):
            head = client.headers()
            client.send(head, client.data(head.stream_id, body))
            await client.ended(head.stream_id)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("streamkit")]
    assert len(lines) == 1
    assert "\n" not in lines[0]


async def test_a_fault_in_a_handler_is_logged_and_not_told(
    serve: Serve, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    client = await dial(await serve())
    answer = await client.ended(client.call(ask("fail:bug")))
    assert (answer.status, len(answer.messages)) == (INTERNAL, 1)
    assert "secret" not in answer.message
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("topic", "status", "text"),
    [("fail:limit", EXHAUSTED, "too much"), ("fail:missing", 5, "no such thing")],
)
async def test_an_error_of_the_tree_is_its_status(
    topic: str, status: int, text: str, serve: Serve, dial: Dial
) -> None:
    client = await dial(await serve())
    answer = await client.ended(client.call(ask(topic)))
    assert (answer.status, answer.message, len(answer.messages)) == (status, text, 1)


async def test_the_hint_of_an_error_travels(serve: Serve) -> None:
    server = await serve()
    channel = Channel(server.addresses[0], codec=PlainCodec())
    request = SubscribeRequest(topics=["fail:missing"])
    async with channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request) as call:
        assert len(await call.receive()) == 1
        with pytest.raises(NotFoundError) as caught:
            await call.receive()
    assert caught.value.hint == "look elsewhere\u2026"
    await channel.aclose()


async def test_a_gap_names_its_bounds(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    answer = await client.ended(client.call(ask("fail:gap")))
    assert answer.status == 11
    assert answer.trailers["streamkit-oldest"] == "3"
    assert answer.trailers["streamkit-newest"] == "9"


async def test_a_request_without_its_message_does_not_hold_a_place(
    serve: Serve, dial: Dial
) -> None:
    server = await serve(request_timeout=0.2)
    client = await dial(server)
    quiet = client.headers(client.fields(PUBLISH))
    half = client.headers(client.fields(SUBSCRIBE))
    most = client.headers(client.fields(SUBSCRIBE))
    client.send(quiet, half, client.data(half.stream_id, b"\0\0\0", end=False))
    client.send(most, client.data(most.stream_id, message(ask("count:1"))[:-1], end=False))
    for head in (quiet, half, most):
        assert (await client.ended(head.stream_id)).status == DEADLINE
    await client.pong()
    assert server.calls == 0


async def test_a_late_second_message_is_noticed(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    head = client.headers()
    client.send(head, client.data(head.stream_id, message(ask("ticks:10")), end=False))
    await client.until(lambda: bool(client.answer(head.stream_id).data))
    client.send(client.data(head.stream_id, message(ask("count:1"))))
    assert (await client.ended(head.stream_id)).status == 12


async def test_connections_are_limited(serve: Serve, dial: Dial) -> None:
    server = await serve(max_connections=3)
    clients = [await dial(server) for _ in range(3)]
    for client in clients:
        assert await client.pong()
    extra = await dial(server)
    await extra.gone()
    assert server.connections == 3
    await clients[0].close()
    async with asyncio.timeout(20):
        while server.connections == 3:
            await asyncio.sleep(0)
    assert await (await dial(server)).pong()


async def test_an_idle_connection_is_told_to_go(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(max_connection_idle=0.2))
    stream = client.call(ask("ticks:100"))
    answer = await client.ended(stream)
    assert (answer.status, len(answer.messages)) == (0, 100)
    assert await client.gone() == 0
    assert [f.last_stream_id for f in client.goaways] == [2**31 - 1, stream]


async def test_an_old_connection_takes_no_more_calls(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(max_connection_age=0.2, age_grace=0.2))
    stream = client.call(ask("idle:x"))
    await client.until(lambda: len(client.goaways) == 1)
    answer = await client.ended(stream)
    assert answer.status == UNAVAILABLE
    assert answer.trailers["streamkit-reconnect"] == "1"
    assert await client.gone() == 0


async def test_a_long_error_text_is_cut(serve: Serve, dial: Dial) -> None:
    class Wordy(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            from streamkit.errors import InvalidArgumentError

            raise InvalidArgumentError("\u00e9" * 20_000)
            yield Update()

    client = await dial(await serve(Wordy()))
    answer = await client.ended(client.call(ask("x")))
    assert answer.status == 3
    assert len(answer.message) <= 3 * 1024


async def test_the_settings_offer_what_is_accepted(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    await client.until(lambda: any(isinstance(f, SettingsFrame) for f in client.frames))
    assert client.settings[2] == 0
    assert client.settings[3] == 1000
    assert client.settings[5] == 1 << 20
    assert client.settings[6] == 16 << 10


async def test_a_large_frame_is_accepted(serve: Serve, dial: Dial, writes: Writes) -> None:
    client: RawClient = await dial(await serve())
    payload = bytes(PublishRequest(updates=[Update(message="x" * 900_000)]))
    stream = client.call(payload, PUBLISH)
    assert (await client.ended(stream)).status == 0
    assert len(writes.received[0].updates[0].message) == 900_000
