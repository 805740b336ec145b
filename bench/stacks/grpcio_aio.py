"""grpc.aio, as server and as client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from bench.stacks import load

pb = load.schema()


class Service:
    """The same streams as ours."""

    def __init__(self) -> None:
        self._queues: list[asyncio.Queue[Any]] = []
        self._publisher: asyncio.Task[None] | None = None

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
        elif what == "idle":
            await ctx.send_initial_metadata(())
            await asyncio.Event().wait()
        elif what == "fan":
            # Each subscriber has a bounded queue, as every guide to fan-out has it. The messages
            # are encoded once: what is queued are bytes.
            queue: asyncio.Queue[Any] = asyncio.Queue(1000)
            self._queues.append(queue)
            messages = int(request.topics[1])
            if len(self._queues) == number:
                self._publisher = asyncio.create_task(self._publish(messages))
            for _ in range(messages):
                yield await queue.get()

    async def _publish(self, messages: int) -> None:
        for _ in range(messages // load.FAN_BURST):
            for _ in range(load.FAN_BURST):
                update = pb.Update(topic=load.TOPIC, message=load.TEXT).SerializeToString()
                for queue in self._queues:
                    await queue.put(update)
            await asyncio.sleep(0)


def encoded(message: Any) -> bytes:
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


async def serve() -> None:
    load.raise_file_limit()
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 1000)])
    handler = grpc.unary_stream_rpc_method_handler(
        Service().subscribe,
        request_deserializer=pb.SubscribeRequest.FromString,
        response_serializer=encoded,
    )
    _, service, method = load.SUBSCRIBE.split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    load.announce(port)
    await asyncio.to_thread(load.wait_for_the_end)
    await server.stop(None)


async def client(task: str, port: int, number: int) -> None:
    options = [("grpc.max_receive_message_length", 8 * 1024 * 1024)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        method = channel.unary_stream(
            load.SUBSCRIBE,
            request_serializer=pb.SubscribeRequest.SerializeToString,
            response_deserializer=pb.Update.FromString,
        )

        def subscribe(topic: str, count: int) -> AsyncIterator[Any]:
            found: AsyncIterator[Any] = method(
                pb.SubscribeRequest(topics=[topic], client_id=str(count))
            )
            return found

        await load.measured_client(task, number, subscribe)


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    else:
        asyncio.run(client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))


if __name__ == "__main__":
    main()
