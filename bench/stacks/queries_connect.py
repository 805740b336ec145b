"""Query results by connectrpc on pyvoy (Envoy): `app` is the server, `client` the program."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from connectrpc.client import ConnectClient
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_codecs
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from connectrpc.server import ConnectASGIApplication, Endpoint
from pyqwest import Client, HTTPTransport, HTTPVersion

from bench.stacks import load
from bench.stacks.queries import BATCH, METHOD, peer_messages, table

pb = load.schema()
_, SERVICE, _NAME = METHOD.split("/")
INFO = MethodInfo(
    name=_NAME,
    service_name=SERVICE,
    input=pb.QueryRequest,
    output=pb.QueryResult,
    idempotency_level=IdempotencyLevel.UNKNOWN,
    stream_type=StreamType.SERVER_STREAM,
)


class Service:
    """The same query as the other peers."""

    async def query(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        for message in peer_messages(pb, request.database, request.query):
            yield message


def endpoints(service: Service) -> Mapping[str, Any]:
    return {METHOD: Endpoint.server_stream(INFO, service.query)}


class Application(ConnectASGIApplication[Service]):  # type: ignore[misc, unused-ignore]  # an untyped base
    """What pyvoy serves."""

    path = f"/{SERVICE}"


app = Application(
    service=Service(), endpoints=endpoints, compressions=(), codecs=google_protobuf_codecs()
)


async def client(port: str, source: str, columns: str, rows: int) -> None:
    stub = ConnectClient(
        f"http://127.0.0.1:{port}",
        codec=google_protobuf_binary_codec(),
        protocol=ProtocolType.GRPC,
        send_compression=None,
        accept_compression=(),
        http_client=Client(HTTPTransport(http_version=HTTPVersion.HTTP2, enable_otel=False)),
    )
    for limit in (" LIMIT 2000", ""):
        sql = f"SELECT * FROM {table(columns)}{limit}"
        request = pb.QueryRequest(query=sql, batch_size=BATCH, database=source)
        began = time.perf_counter()
        seen = 0
        async for message in stub.execute_server_stream(request=request, method=INFO):
            seen += len(message.rows)
        took = time.perf_counter() - began
    assert seen == rows, seen
    load.report(rows=rows / took)


if __name__ == "__main__":
    at, source, columns, rows = sys.argv[3:7]
    asyncio.run(client(at, source, columns, int(rows)))
