"""connectrpc's streams for `bench doors`, served by uvicorn or by pyvoy (Envoy).

python -m bench.stacks.events_connect uvicorn|uvicorn2      serves BENCH_EVENTS; prints its port
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from connectrpc.compat import google_protobuf_codecs
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint

from bench.stacks import load
from bench.stacks.events import TEXT, due

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
EVENTS = int(os.environ.get("BENCH_EVENTS", "0"))


class Service:
    """The same streams as the others, from memory. A call for "make/N" makes N live events."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Any]] = set()

    async def subscribe(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        what, _, number = request.topics[0].partition("/")
        if what == "orders":
            for n in range(EVENTS):
                yield pb.Update(topic="orders.eu", message=TEXT, metadata={"n": str(n)})
        elif what == "make":
            began = time.monotonic()
            for n in range(int(number)):
                one = pb.Update(topic="live", message=TEXT, metadata={"n": str(n)})
                for queue in self._queues:
                    queue.put_nowait(one)
                how, _, a_second = request.client_id.partition(" ")
                if how != "together":
                    await due(began, n + 1, float(a_second or 0))
        else:
            mine: asyncio.Queue[Any] = asyncio.Queue()
            self._queues.add(mine)
            try:
                yield pb.Update(topic="ready")
                while True:
                    yield await mine.get()
            finally:
                self._queues.discard(mine)


def endpoints(service: Service) -> Mapping[str, Any]:
    return {load.SUBSCRIBE: Endpoint.server_stream(INFO, service.subscribe)}


class Application(ConnectASGIApplication[Service]):  # type: ignore[misc, unused-ignore]  # an untyped base
    """What uvicorn and pyvoy serve."""

    path = f"/{SERVICE}"


app = Application(
    service=Service(), endpoints=endpoints, compressions=(), codecs=google_protobuf_codecs()
)


async def main() -> None:
    import uvicorn

    settings: Any = {"log_level": "warning", "access_log": False, "lifespan": "off"}
    if sys.argv[1] == "uvicorn2":
        settings |= {"http": "zttp", "http2": True}
    config = uvicorn.Config(app, port=0, **settings)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # nothing of it can be awaited
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
