"""grpclib and betterproto as they are installed, as server and as client."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpclib.client
import grpclib.server

from bench.stacks import load

sys.modules["betterproto_rust_codec"] = None  # type: ignore[assignment]  # plain betterproto
sys.path.insert(0, os.environ["BENCH_SCHEMA"])
streamservice: Any = importlib.import_module("streamservice")


class Service(streamservice.StreamServiceBase):  # type: ignore[misc]  # an untyped base
    """The same streams as ours."""

    async def subscribe_to_updates(self, request: Any) -> AsyncIterator[Any]:
        what = request.topics[0]
        number = int(request.client_id or 0)
        if what == "count":
            for _ in range(number):
                yield streamservice.Update(topic=load.TOPIC, message=load.TEXT)
        elif what == "pace":
            for _ in range(number):
                await asyncio.sleep(load.PACE)
                yield streamservice.Update(topic=load.stamp(), message=load.TEXT)
        elif what == "big":
            for _ in range(number):
                yield streamservice.Update(message=load.BIG)


async def serve() -> None:
    load.raise_file_limit()
    server = grpclib.server.Server([Service()])
    await server.start("127.0.0.1", 0)
    assert isinstance(server._server, asyncio.Server)
    load.announce(server._server.sockets[0].getsockname()[1])
    await asyncio.to_thread(load.wait_for_the_end)
    server.close()


async def client(task: str, port: int, number: int) -> None:
    channel = grpclib.client.Channel("127.0.0.1", port)
    stub = streamservice.StreamServiceStub(channel)

    def subscribe(topic: str, count: int) -> AsyncIterator[Any]:
        request = streamservice.SubscribeRequest(topics=[topic], client_id=str(count))
        found: AsyncIterator[Any] = stub.subscribe_to_updates(request)
        return found

    await load.measured_client(task, number, subscribe)
    channel.close()


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    else:
        asyncio.run(client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))


if __name__ == "__main__":
    main()
