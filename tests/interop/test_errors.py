"""Details of errors, and retries by service config, between streamkit and an unmodified grpcio."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from streamkit.errors import ConnectError, InvalidArgumentError
from streamkit.generated.google import rpc
from streamkit.generated.streamservice import ProducerServiceBase, PublishRequest, WriteReply
from streamkit.transport import Channel, GrpcServer
from streamkit.transport.grpc.details import DETAILS, pack_details

PUBLISH = "/streamservice.ProducerService/Publish"
SAID = [
    rpc.BadRequest(
        field_violations=[rpc.BadRequestFieldViolation(field="topic", description="is too long")]
    ),
    rpc.ErrorInfo(reason="TOO_LONG", domain="example.org"),
]
CONFIG: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{"service": "streamservice.ProducerService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.05s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Theirs(grpc.GenericRpcHandler):  # type: ignore[misc]  # an untyped base
    """A method of grpcio's that fails as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.tried: list[str] = []

    def service(self, details: Any) -> Any:
        async def publish(request: bytes, context: Any) -> bytes:
            sent = dict(context.invocation_metadata())
            self.tried.append(sent.get("grpc-previous-rpc-attempts", "0"))
            if self.failures:
                self.failures -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
            if not request:
                packed = pack_details(3, "no", SAID)
                context.set_trailing_metadata(((DETAILS, packed),))
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            return bytes(WriteReply(producer_sequence=len(self.tried)))

        return grpc.unary_unary_rpc_method_handler(publish)


@asynccontextmanager
async def theirs(handler: Theirs) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_details_of_grpcios_server() -> None:
    async with theirs(Theirs()) as address, Channel(address) as channel:
        with pytest.raises(InvalidArgumentError, match="no") as caught:
            await channel.unary(PUBLISH, PublishRequest(), WriteReply)
        assert list(caught.value.details) == SAID


async def test_details_for_grpcios_client() -> None:
    class Ours(ProducerServiceBase):
        async def publish(self, publish_request: PublishRequest) -> WriteReply:
            raise InvalidArgumentError("no", details=SAID)

    server = GrpcServer([Ours()])
    await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(PUBLISH)(b"")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())[DETAILS] == pack_details(3, "no", SAID)
    await server.close()


@pytest.mark.parametrize("failures", [0, 3, 4])
async def test_grpcios_server_is_asked_again(failures: int) -> None:
    """As often as its own client would, which is measured here by the same config."""
    handler, same = Theirs(failures), Theirs(failures)
    request = PublishRequest(updates=[])
    request.producer.id = "p"
    async with theirs(handler) as address, Channel(address, service_config=CONFIG) as channel:
        try:
            await channel.unary(PUBLISH, request, WriteReply)
        except ConnectError:
            assert failures == 4
        else:
            assert failures < 4
    options = [("grpc.service_config", json.dumps(CONFIG)), ("grpc.enable_retries", 1)]
    async with theirs(same) as address, grpc.aio.insecure_channel(address, options) as other:
        try:
            await other.unary_unary(PUBLISH)(bytes(request))
        except grpc.aio.AioRpcError:
            assert failures == 4
    assert handler.tried == same.tried
