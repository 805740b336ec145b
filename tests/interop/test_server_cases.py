"""gRPC's interoperability cases: an unmodified grpcio client calls a streamkit server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from streamkit.codec import StreamkitCodec
from streamkit.config import KIB, TransportLimits
from streamkit.transport import GrpcServer
from tests.interop.links import Link
from tests.interop.schema import Schema
from tests.interop.service import ECHO_INITIAL, ECHO_TRAILING, streamkit_service

SENT = (27182, 8, 1828, 45904)
ANSWERED = (31415, 9, 2653, 58979)


@pytest_asyncio.fixture
async def channel(schema: Schema, link: Link) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcServer(
        [streamkit_service(schema)],
        codec=StreamkitCodec(),
        limits=TransportLimits(max_header_list=128 * KIB),
        ssl=link.server_ssl,
    )
    await link.start(server)
    try:
        options = [("grpc.max_metadata_size", 128 * KIB)]
        async with link.channel(options=options) as channel:
            yield channel
    finally:
        await server.close()


@pytest.fixture
def stub(schema: Schema, channel: grpc.aio.Channel) -> Any:
    return schema.grpc.TestServiceStub(channel)


def output(schema: Schema, *sizes: int, sent: int = 0, interval_us: int = 0) -> Any:
    pb = schema.pb
    return pb.OutputRequest(
        parameters=[pb.OutputParameters(size=size, interval_us=interval_us) for size in sizes],
        payload=pb.Payload(body=bytes(sent)),
    )


async def test_empty_unary(schema: Schema, stub: Any) -> None:
    assert await stub.EmptyCall(schema.pb.Nothing()) == schema.pb.Nothing()


async def test_large_unary(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    request = pb.UnaryRequest(response_size=314159, payload=pb.Payload(body=bytes(271828)))
    assert (await stub.UnaryCall(request)).payload.body == bytes(314159)


async def test_client_streaming(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    requests = [pb.InputRequest(payload=pb.Payload(body=bytes(size))) for size in SENT]
    assert (await stub.InputCall(iter(requests))).aggregated_size == 74922


async def test_server_streaming(schema: Schema, stub: Any) -> None:
    call = stub.OutputCall(output(schema, *ANSWERED))
    assert [len(reply.payload.body) async for reply in call] == list(ANSWERED)
    assert await call.code() is grpc.StatusCode.OK


async def test_ping_pong(schema: Schema, stub: Any) -> None:
    call = stub.DuplexCall()
    for sent, answered in zip(SENT, ANSWERED, strict=True):
        await call.write(output(schema, answered, sent=sent))
        assert len((await call.read()).payload.body) == answered
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(stub: Any) -> None:
    call = stub.DuplexCall()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_cancel_after_begin(stub: Any) -> None:
    call = stub.InputCall()
    await asyncio.sleep(0.01)
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_first_response(schema: Schema, stub: Any) -> None:
    call = stub.DuplexCall()
    await call.write(output(schema, ANSWERED[0], sent=SENT[0]))
    assert len((await call.read()).payload.body) == ANSWERED[0]
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_timeout_on_sleeping_server(
    schema: Schema, link: Link, channel: grpc.aio.Channel
) -> None:
    # grpcio's asyncio client reports INTERNAL when it meets the deadline while it writes.
    def call() -> grpc.StatusCode:
        with link.blocking_channel() as blocking:
            requests = [output(schema, ANSWERED[0], sent=SENT[0], interval_us=10**7)]
            replies = schema.grpc.TestServiceStub(blocking).DuplexCall(
                iter(requests), timeout=0.001
            )
            with pytest.raises(grpc.RpcError):
                next(replies)
            return replies.code()

    assert await asyncio.to_thread(call) is grpc.StatusCode.DEADLINE_EXCEEDED


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_status_code_and_message(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    status = pb.EchoStatus(code=2, message="test status message")
    unary = stub.UnaryCall(pb.UnaryRequest(response_status=status))
    assert await failure(unary) == (grpc.StatusCode.UNKNOWN, "test status message")
    duplex = stub.DuplexCall(iter([pb.OutputRequest(response_status=status)]))
    assert await failure(duplex.read()) == (grpc.StatusCode.UNKNOWN, "test status message")


async def test_special_status_message(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    status = pb.EchoStatus(code=2, message=text)
    found = await failure(stub.UnaryCall(pb.UnaryRequest(response_status=status)))
    assert found == (grpc.StatusCode.UNKNOWN, text)


async def test_unimplemented(schema: Schema, stub: Any, channel: grpc.aio.Channel) -> None:
    nothing = schema.pb.Nothing()
    code, _ = await failure(stub.UnimplementedCall(nothing))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    missing = schema.grpc.MissingServiceStub(channel)
    code, _ = await failure(missing.UnimplementedCall(nothing))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_custom_metadata(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    metadata = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))
    request = pb.UnaryRequest(response_size=314159, payload=pb.Payload(body=bytes(271828)))
    unary = stub.UnaryCall(request, metadata=metadata)
    duplex = stub.DuplexCall(metadata=metadata)
    await duplex.write(output(schema, 314159, sent=271828))
    await duplex.read()
    await duplex.done_writing()
    for call in (unary, duplex):
        assert (await call.initial_metadata())[ECHO_INITIAL] == "test_initial_metadata_value"
        assert (await call.trailing_metadata())[ECHO_TRAILING] == b"\xab\xab\xab"


async def test_client_compressed_unary(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    body = pb.Payload(body=bytes(271828))
    wanted = pb.UnaryRequest(expect_compressed=True, response_size=314159, payload=body)
    code, _ = await failure(stub.UnaryCall(wanted))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    reply = await stub.UnaryCall(wanted, compression=grpc.Compression.Gzip)
    assert len(reply.payload.body) == 314159
    plain = pb.UnaryRequest(response_size=314159, payload=body)
    assert len((await stub.UnaryCall(plain)).payload.body) == 314159


async def test_client_compressed_streaming(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    first = pb.InputRequest(expect_compressed=True, payload=pb.Payload(body=bytes(27182)))
    code, _ = await failure(stub.InputCall(iter([first])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    # grpcio leaves alone what gzip does not make smaller: a plain message on the same stream.
    second = pb.InputRequest(payload=pb.Payload(body=os.urandom(45904)))
    call = stub.InputCall(iter([first, second]), compression=grpc.Compression.Gzip)
    assert (await call).aggregated_size == 73086


async def test_server_compressed_unary(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    body = pb.Payload(body=bytes(271828))
    for compressed in (True, False):
        request = pb.UnaryRequest(
            response_compressed=compressed, response_size=314159, payload=body
        )
        assert (await stub.UnaryCall(request)).payload.body == bytes(314159)


async def test_server_compressed_streaming(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    parameters = [
        pb.OutputParameters(size=31415, compressed=True),
        pb.OutputParameters(size=92653, compressed=False),
    ]
    call = stub.OutputCall(pb.OutputRequest(parameters=parameters))
    assert [len(reply.payload.body) async for reply in call] == [31415, 92653]


async def test_concurrent_large_unary(schema: Schema, stub: Any) -> None:
    pb = schema.pb
    request = pb.UnaryRequest(response_size=3000, payload=pb.Payload(body=bytes(3000)))
    replies = await asyncio.gather(*(stub.UnaryCall(request) for _ in range(300)))
    assert {len(reply.payload.body) for reply in replies} == {3000}


async def test_large_header(schema: Schema, stub: Any) -> None:
    value = "x" * 63 * KIB
    call = stub.EmptyCall(schema.pb.Nothing(), metadata=((ECHO_INITIAL, value),))
    await call
    assert (await call.initial_metadata())[ECHO_INITIAL] == value


async def test_a_response_begins_without_a_request(schema: Schema, stub: Any) -> None:
    def requests() -> Iterator[Any]:
        yield output(schema, 1)

    call = stub.DuplexCall(requests())
    assert len((await call.read()).payload.body) == 1
    assert await call.read() is grpc.aio.EOF
