"""gRPC's interoperability cases: a streamkit channel calls an unmodified grpcio server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from streamkit.codec import StreamkitCodec
from streamkit.config import KIB, TransportLimits
from streamkit.errors import (
    CallCancelledError,
    DeadlineError,
    InternalError,
    Status,
    UnimplementedError,
)
from streamkit.transport import Channel
from streamkit.transport.grpc.receive import Inflated
from tests.interop.links import Link
from tests.interop.schema import SERVICE, Schema
from tests.interop.service import ECHO_INITIAL, ECHO_TRAILING, grpcio_servicer

SENT = (27182, 8, 1828, 45904)
ANSWERED = (31415, 9, 2653, 58979)


class NotingCodec(StreamkitCodec):
    """Notes for each message received whether it came compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.compressed: list[bool] = []

    def decode(self, data: bytes, message_type: Any) -> Any:
        self.compressed.append(isinstance(data, Inflated))
        return super().decode(data, message_type)


@pytest.fixture
def codec() -> NotingCodec:
    return NotingCodec()


@pytest_asyncio.fixture
async def channel(schema: Schema, link: Link, codec: NotingCodec) -> AsyncIterator[Channel]:
    server = grpc.aio.server(options=[("grpc.max_metadata_size", 128 * KIB)])
    schema.grpc.add_TestServiceServicer_to_server(grpcio_servicer(schema), server)
    link.bind(server)
    await server.start()
    limits = TransportLimits(max_header_list=128 * KIB)
    try:
        async with Channel(link.target, codec=codec, limits=limits, ssl=link.client_ssl) as channel:
            yield channel
    finally:
        await server.stop(None)


@pytest.fixture
def stub(schema: Schema, channel: Channel) -> Any:
    return schema.bp.TestServiceStub(channel)


def body(schema: Schema, size: int) -> Any:
    return schema.bp.Payload(body=bytes(size))


def output(schema: Schema, *sizes: int, sent: int = 0, interval_us: int = 0) -> Any:
    bp = schema.bp
    return bp.OutputRequest(
        parameters=[bp.OutputParameters(size=size, interval_us=interval_us) for size in sizes],
        payload=body(schema, sent),
    )


def duplex(schema: Schema, channel: Channel, **more: Any) -> Any:
    bp = schema.bp
    return channel.stream(SERVICE + "DuplexCall", bp.OutputRequest, bp.OutputReply, **more)


def sending(schema: Schema, channel: Channel, **more: Any) -> Any:
    bp = schema.bp
    return channel.stream(SERVICE + "InputCall", bp.InputRequest, bp.InputReply, **more)


async def one(call: Any) -> Any:
    (message,) = await call.receive()
    return message


async def test_empty_unary(schema: Schema, channel: Channel, stub: Any) -> None:
    nothing = schema.bp.Nothing()
    assert await channel.unary(SERVICE + "EmptyCall", nothing, schema.bp.Nothing) == nothing
    assert await stub.empty_call(nothing) == nothing


async def test_large_unary(schema: Schema, stub: Any) -> None:
    request = schema.bp.UnaryRequest(response_size=314159, payload=body(schema, 271828))
    assert (await stub.unary_call(request)).payload.body == bytes(314159)


async def test_client_streaming(schema: Schema, channel: Channel, stub: Any) -> None:
    requests = [schema.bp.InputRequest(payload=body(schema, size)) for size in SENT]
    assert (await stub.input_call(requests)).aggregated_size == 74922
    async with sending(schema, channel) as call:
        for request in requests:
            await call.send(request)
        await call.end()
        assert (await call.reply()).aggregated_size == 74922


async def test_server_streaming(schema: Schema, stub: Any) -> None:
    replies = stub.output_call(output(schema, *ANSWERED))
    assert [len(reply.payload.body) async for reply in replies] == list(ANSWERED)


async def test_ping_pong(schema: Schema, channel: Channel) -> None:
    async with duplex(schema, channel) as call:
        for sent, answered in zip(SENT, ANSWERED, strict=True):
            await call.send(output(schema, answered, sent=sent))
            assert len((await one(call)).payload.body) == answered
        await call.end()
        assert await call.receive() == []


async def test_empty_stream(schema: Schema, channel: Channel, stub: Any) -> None:
    async with duplex(schema, channel) as call:
        await call.end()
        assert await call.receive() == []
    assert [reply async for reply in stub.duplex_call([])] == []


async def test_cancel_after_begin(schema: Schema, channel: Channel) -> None:
    async with sending(schema, channel) as call:
        call.cancel()
        with pytest.raises(CallCancelledError):
            await call.reply()
        assert call.error.status is Status.CANCELLED


async def test_cancel_after_first_response(schema: Schema, channel: Channel) -> None:
    async with duplex(schema, channel) as call:
        await call.send(output(schema, ANSWERED[0], sent=SENT[0]))
        assert len((await one(call)).payload.body) == ANSWERED[0]
        call.cancel()
        with pytest.raises(CallCancelledError):
            await call.receive()


async def test_timeout_on_sleeping_server(schema: Schema, channel: Channel) -> None:
    with pytest.raises(DeadlineError):
        async with duplex(schema, channel, timeout=0.001) as call:
            await call.send(output(schema, ANSWERED[0], sent=SENT[0], interval_us=10**7))
            await call.receive()
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_status_code_and_message(schema: Schema, channel: Channel, stub: Any) -> None:
    status = schema.bp.EchoStatus(code=2, message="test status message")
    with pytest.raises(InternalError, match=r"^test status message$") as caught:
        await stub.unary_call(schema.bp.UnaryRequest(response_status=status))
    assert caught.value.status is Status.UNKNOWN
    async with duplex(schema, channel) as call:
        await call.send(schema.bp.OutputRequest(response_status=status))
        await call.end()
        with pytest.raises(InternalError, match=r"^test status message$"):
            await call.receive()


async def test_special_status_message(schema: Schema, stub: Any) -> None:
    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    status = schema.bp.EchoStatus(code=2, message=text)
    with pytest.raises(InternalError) as caught:
        await stub.unary_call(schema.bp.UnaryRequest(response_status=status))
    assert caught.value.message == text


async def test_unimplemented(schema: Schema, channel: Channel, stub: Any) -> None:
    nothing = schema.bp.Nothing()
    with pytest.raises(UnimplementedError):
        await stub.unimplemented_call(nothing)
    with pytest.raises(UnimplementedError):
        await schema.bp.MissingServiceStub(channel).unimplemented_call(nothing)


async def test_custom_metadata(schema: Schema, channel: Channel) -> None:
    bp = schema.bp
    metadata: dict[str, str | bytes] = {
        ECHO_INITIAL: "test_initial_metadata_value",
        ECHO_TRAILING: b"\xab\xab\xab",
    }
    request = bp.UnaryRequest(response_size=314159, payload=body(schema, 271828))
    unary = channel.stream(
        SERVICE + "UnaryCall", bp.UnaryRequest, bp.UnaryReply, request=request, metadata=metadata
    )
    both = duplex(schema, channel, metadata=metadata)
    async with unary, both:
        await unary.reply()
        await both.send(output(schema, 314159, sent=271828))
        await both.end()
        await both.reply()
        for call in (unary, both):
            found = await call.initial_metadata()
            assert found[ECHO_INITIAL] == "test_initial_metadata_value"
            assert call.trailing_metadata is not None
            assert call.trailing_metadata[ECHO_TRAILING] == b"\xab\xab\xab"


async def test_client_compressed_unary(schema: Schema, channel: Channel) -> None:
    bp = schema.bp
    for compression in ("gzip", "deflate", ""):
        request = bp.UnaryRequest(response_size=314159, payload=body(schema, 271828))
        reply = await channel.unary(
            SERVICE + "UnaryCall", request, bp.UnaryReply, compression=compression
        )
        assert len(reply.payload.body) == 314159


async def test_client_compressed_streaming(schema: Schema, channel: Channel) -> None:
    bp = schema.bp
    async with sending(schema, channel, compression="gzip") as call:
        await call.send(bp.InputRequest(payload=body(schema, 27182)))
        plain = bp.InputRequest(payload=bp.Payload(body=os.urandom(45904)))
        await call.send(plain, compress=False)
        await call.end()
        assert (await call.reply()).aggregated_size == 73086


async def test_server_compressed_unary(schema: Schema, stub: Any, codec: NotingCodec) -> None:
    for compressed in (True, False):
        request = schema.bp.UnaryRequest(
            response_compressed=compressed,
            response_size=314159,
            payload=body(schema, 271828),
        )
        assert (await stub.unary_call(request)).payload.body == bytes(314159)
    assert codec.compressed == [True, False]


async def test_server_compressed_streaming(schema: Schema, stub: Any, codec: NotingCodec) -> None:
    bp = schema.bp
    parameters = [
        bp.OutputParameters(size=31415, compressed=True),
        bp.OutputParameters(size=92653, compressed=False),
    ]
    replies = stub.output_call(bp.OutputRequest(parameters=parameters))
    assert [len(reply.payload.body) async for reply in replies] == [31415, 92653]
    assert codec.compressed == [True, False]


async def test_concurrent_large_unary(schema: Schema, stub: Any) -> None:
    request = schema.bp.UnaryRequest(response_size=3000, payload=body(schema, 3000))
    replies = await asyncio.gather(*(stub.unary_call(request) for _ in range(300)))
    assert {len(reply.payload.body) for reply in replies} == {3000}


async def test_large_header(schema: Schema, channel: Channel) -> None:
    value = "x" * 63 * KIB
    call = channel.stream(
        SERVICE + "EmptyCall",
        schema.bp.Nothing,
        schema.bp.Nothing,
        request=schema.bp.Nothing(),
        metadata={ECHO_INITIAL: value},
    )
    async with call:
        await call.reply()
        assert (await call.initial_metadata())[ECHO_INITIAL] == value
