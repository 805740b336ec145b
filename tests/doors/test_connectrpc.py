"""connectrpc's own Python client at the doors, in each of its protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import streamkit
from streamkit import AsyncClient, last
from streamkit.doors.exchange import messages_of
from streamkit.errors import LimitError, StreamkitError, UnimplementedError
from streamkit.transport.grpc.receive import ReceiveBuffer

client_of: Any = import_module("connectrpc.client").ConnectClient
codecs: Any = import_module("connectrpc.compat")
http: Any = import_module("pyqwest")
methods: Any = import_module("connectrpc.method")
Protocol: Any = import_module("connectrpc.protocol").ProtocolType
ConnectError: Any = import_module("connectrpc.errors").ConnectError


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    data = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


POOL = _pool()


def message(name: str, **values: Any) -> Any:
    descriptor = POOL.FindMessageTypeByName(f"streamservice.{name}")
    return message_factory.GetMessageClass(descriptor)(**values)


def method(name: str) -> Any:
    """What connectrpc's generated code says of a method."""
    service, _, short = name.rpartition(".")
    described = POOL.FindServiceByName(f"streamservice.{service}").methods_by_name[short]
    kinds = methods.StreamType
    kind = kinds.SERVER_STREAM if described.server_streaming else kinds.UNARY
    if described.client_streaming:
        kind = kinds.BIDI_STREAM
    return methods.MethodInfo(
        name=short,
        service_name=f"streamservice.{service}",
        input=message_factory.GetMessageClass(described.input_type),
        output=message_factory.GetMessageClass(described.output_type),
        idempotency_level=methods.IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


@pytest.mark.parametrize(
    ("protocol", "codec", "version"),
    [
        ("CONNECT", "json", "HTTP1"),
        ("CONNECT", "binary", "HTTP1"),
        ("CONNECT", "json", "HTTP2"),
        ("GRPC_WEB", "binary", "HTTP1"),
        ("GRPC_WEB", "binary", "HTTP2"),
        ("GRPC", "binary", "HTTP2"),
    ],
)
async def test_connectrpcs_client_is_served(
    protocol: str, codec: str, version: str, server: str, client: AsyncClient
) -> None:
    for n in range(5):
        await client.publish("orders", f"update {n}")
    transport = http.HTTPTransport(http_version=getattr(http.HTTPVersion, version))
    stub = client_of(
        f"http://{server}",
        codec=getattr(codecs, f"google_protobuf_{codec}_codec")(),
        protocol=Protocol[protocol],
        http_client=http.Client(transport),
    )
    async with asyncio.timeout(30):
        status = await stub.execute_unary(
            request=message("StatusRequest"), method=method("AdminService.GetStatus")
        )
        assert status.version == streamkit.__version__
        request = message("SubscribeRequest", topics=["orders"], start={"all": True})
        subscribe = method("StreamService.SubscribeToUpdates")
        read = []
        async for update in stub.execute_server_stream(request=request, method=subscribe):
            read.append(update.message)
            if len(read) == 5:
                await client.publish("orders", "live")
            if len(read) == 6:
                break
        assert read == [*(f"update {n}" for n in range(5)), "live"]
        with pytest.raises(ConnectError) as missing:
            await stub.execute_unary(
                request=message("CancelJobRequest", job_id="nobody's"),
                method=method("ProducerService.CancelJob"),
            )
        assert (missing.value.code.value, missing.value.message) == (
            "not_found", 'no job "nobody\'s"',
        )  # fmt: skip
        with pytest.raises(ConnectError) as late:
            found = stub.execute_server_stream(request=request, method=subscribe, timeout_ms=300)
            async for _ in found:
                pass
        assert late.value.code.value == "deadline_exceeded"


@pytest.mark.parametrize(
    ("protocol", "codec", "version"),
    [
        ("CONNECT", "json", "HTTP1"),
        ("CONNECT", "binary", "HTTP2"),
        ("GRPC_WEB", "binary", "HTTP1"),
    ],
)
async def test_a_stream_of_requests_is_read_whole_and_answered(
    protocol: str, codec: str, version: str, server: str, client: AsyncClient
) -> None:
    """What goes in one direction after the other fits through every door."""
    transport = http.HTTPTransport(http_version=getattr(http.HTTPVersion, version))
    stub = client_of(
        f"http://{server}",
        codec=getattr(codecs, f"google_protobuf_{codec}_codec")(),
        protocol=Protocol[protocol],
        http_client=http.Client(transport),
    )

    async def requests() -> AsyncIterator[Any]:
        for n in range(3):
            told = [message("Update", topic="orders", message=f"{n}")]
            yield message("WriteRequest", producer={"id": "me", "sequence": n + 1}, updates=told)

    async with asyncio.timeout(30):
        found = stub.execute_bidi_stream(request=requests(), method=method("ProducerService.Write"))
        replies = [reply async for reply in found]
        assert [reply.code for reply in replies] == [0] * len(replies)
        assert replies[-1].producer_sequence == 3
        async with client.subscribe("orders", start=last(3)) as updates:
            read = await updates.receive()
            assert [update.message for update in read] == ["0", "1", "2"]


def test_a_stream_of_requests_is_bounded() -> None:
    buffer = ReceiveBuffer(100)
    assert messages_of(buffer, b"\0\0\0\0\1a" * 3, many=True, most=3) == [b"a"] * 3
    with pytest.raises(LimitError, match="at most 2 messages"):
        messages_of(ReceiveBuffer(100), b"\0\0\0\0\1a" * 3, many=True, most=2)
    with pytest.raises(UnimplementedError, match="one message"):
        messages_of(ReceiveBuffer(100), b"\0\0\0\0\1a" * 2, many=False, most=9)
    with pytest.raises(StreamkitError):
        messages_of(ReceiveBuffer(100), b"\0\0\0\0\1a\0\0", many=True, most=9)
    assert messages_of(ReceiveBuffer(100), b"", many=True, most=9) == []
