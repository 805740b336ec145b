"""Readers that measure, and the peer that they are measured against.

Roles: "streamkit" and "grpcio" read `count` updates from `address` and print updates a second;
"serve" streams them from memory with grpcio.aio and google's own messages.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.proof.processes import ROOT, die_with_parent

METHOD = "/streamservice.StreamService/SubscribeToUpdates"


def google(name: str) -> Any:
    """google.protobuf's class of one of our messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    path = Path(ROOT) / "streamkit" / "generated" / "descriptors.binpb"
    files.ParseFromString(path.read_bytes())
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"streamservice.{name}"))


async def streamkit(settings: dict[str, Any]) -> None:
    from streamkit.client import AsyncClient

    count = settings["count"]
    async with AsyncClient(settings["address"]) as client:
        await client.ping()
        began, got = time.perf_counter(), 0
        async with client.subscribe("load", start="all") as updates:
            async for _ in updates:
                got += 1
                if got == count:
                    break
        print(json.dumps(count / (time.perf_counter() - began)), flush=True)


async def grpcio(settings: dict[str, Any]) -> None:
    import grpc.aio

    request, update, count = google("SubscribeRequest"), google("Update"), settings["count"]
    async with grpc.aio.insecure_channel(settings["address"]) as channel:
        await channel.channel_ready()
        subscribe = channel.unary_stream(
            METHOD,
            request_serializer=request.SerializeToString,
            response_deserializer=update.FromString,
        )
        began, got = time.perf_counter(), 0
        async for _ in subscribe(request(topics=["load"])):
            got += 1
            if got == count:
                break
        print(json.dumps(count / (time.perf_counter() - began)), flush=True)


async def serve(settings: dict[str, Any]) -> None:
    import grpc
    import grpc.aio

    request, update = google("SubscribeRequest"), google("Update")
    kept = []
    for number in range(min(settings["count"], 10_000)):
        message = update(topic="load", message=settings["text"], sequence=number + 1)
        message.timestamp.GetCurrentTime()
        kept.append(message)

    async def subscribe(asked: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(settings["count"]):
            yield kept[number % len(kept)]

    handler = grpc.unary_stream_rpc_method_handler(
        subscribe,
        request_deserializer=request.FromString,
        response_serializer=update.SerializeToString,
    )
    server = grpc.aio.server()
    service, method = METHOD[1:].split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps(f"127.0.0.1:{port}"), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    die_with_parent()
    wanted = json.loads(sys.argv[1])
    asyncio.run({"streamkit": streamkit, "grpcio": grpcio, "serve": serve}[wanted["role"]](wanted))
