"""connectrpc on pyvoy (Envoy), as server and as client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from connectrpc.client import ConnectClient
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_codecs
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from connectrpc.server import ConnectASGIApplication, Endpoint
from pyqwest import Client, HTTPTransport, HTTPVersion

from bench.stacks import load

pb = load.schema()
_, SERVICE, METHOD = load.SUBSCRIBE.split("/")
INFO = MethodInfo(
    name=METHOD,
    service_name=SERVICE,
    input=pb.SubscribeRequest,
    output=pb.Update,
    idempotency_level=IdempotencyLevel.UNKNOWN,
    stream_type=StreamType.SERVER_STREAM,
)


class Service:
    """The same streams as ours."""

    async def subscribe(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        what = request.topics[0]
        number = int(request.client_id or 0)
        if what == "count":
            for _ in range(number):
                yield pb.Update(topic=load.TOPIC, message=load.TEXT)
        elif what == "pace":
            for _ in range(number):
                await asyncio.sleep(load.PACE)
                yield pb.Update(topic=load.stamp(), message=load.TEXT)
        elif what == "big":
            for _ in range(number):
                yield pb.Update(message=load.BIG)


def endpoints(service: Service) -> Mapping[str, Any]:
    return {load.SUBSCRIBE: Endpoint.server_stream(INFO, service.subscribe)}


class Application(ConnectASGIApplication[Service]):  # type: ignore[misc, unused-ignore]  # an untyped base
    """What pyvoy serves."""

    path = f"/{SERVICE}"


app = Application(
    service=Service(), endpoints=endpoints, compressions=(), codecs=google_protobuf_codecs()
)


async def client(task: str, port: int, number: int) -> None:
    protocol = ProtocolType.GRPC
    if task.endswith("-connect"):
        protocol, task = ProtocolType.CONNECT, task.removesuffix("-connect")
    stub = ConnectClient(
        f"http://127.0.0.1:{port}",
        codec=google_protobuf_binary_codec(),
        protocol=protocol,
        send_compression=None,
        accept_compression=(),
        http_client=Client(HTTPTransport(http_version=HTTPVersion.HTTP2, enable_otel=False)),
    )

    def subscribe(topic: str, count: int) -> AsyncIterator[Any]:
        request = pb.SubscribeRequest(topics=[topic], client_id=str(count))
        found: AsyncIterator[Any] = stub.execute_server_stream(request=request, method=INFO)
        return found

    await load.measured_client(task, number, subscribe)


if __name__ == "__main__":
    asyncio.run(client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
