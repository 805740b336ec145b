"""A long resume: who stores the updates, who reads them, and the peer that has them in memory.

    python -m bench.stacks.resumes fill STORE COUNT
    python -m bench.stacks.resumes read ADDRESS PATTERN COUNT STEP
    python -m bench.stacks.resumes serve-grpcio
    python -m bench.stacks.resumes read-grpcio PORT COUNT

A reader looks at every record: its number has to be the next. Of some it compares the text.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from bench.stacks import load

TOPICS = 20
CHUNK = 500
SAMPLE = 1_000
KEPT = 20_000
"""Messages that the peer has in memory and sends over and over."""


def topic(number: int) -> str:
    return f"orders.{number % TOPICS}"


def text(number: int) -> str:
    """With topic and time, an update of about 80 bytes; 16 to 56 of them are this."""
    return f"order {number:09}" + " of goods" * (number * 7919 % 6)


async def fill(store: str, count: int) -> None:
    from streamkit.config import JournalOptions, Retention
    from streamkit.generated.streamservice import Update
    from streamkit.journal import open_journal

    options = JournalOptions(retention=Retention(max_age=0, max_bytes=0), ring_records=1)
    async with await open_journal(store, options) as journal:
        for first in range(1, count + 1, CHUNK):
            numbers = range(first, min(first + CHUNK, count + 1))
            await journal.append_updates([Update(topic=topic(n), message=text(n)) for n in numbers])


async def read(address: str, pattern: str, count: int, step: int) -> None:
    from streamkit.client import AsyncClient

    async with AsyncClient(address) as client:
        await client.ping()
        began, cpu = time.perf_counter(), time.process_time()
        number = 0
        async with client.subscribe(pattern, start="all") as updates:
            async for update in updates:
                number += step
                if update.sequence != number:
                    raise SystemExit(f"{update.sequence} came instead of {number}")
                if not number % SAMPLE and update.message != text(number):
                    raise SystemExit(f"{update} came instead of {text(number)!r}")
                if number >= count:
                    break
        report(count // step, began, cpu)


async def read_grpcio(port: int, count: int) -> None:
    import grpc.aio

    pb = load.schema()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        subscribe = channel.unary_stream(
            load.SUBSCRIBE,
            request_serializer=pb.SubscribeRequest.SerializeToString,
            response_deserializer=pb.Update.FromString,
        )
        began, cpu = time.perf_counter(), time.process_time()
        number = 0
        async for update in subscribe(pb.SubscribeRequest(topics=[">"], client_id=str(count))):
            number += 1
            if update.sequence != (number - 1) % KEPT + 1:
                raise SystemExit(f"{update.sequence} came instead of {number}")
            if not number % SAMPLE and update.message != text(update.sequence):
                raise SystemExit(f"{update} came instead of {text(update.sequence)!r}")
        assert number == count
        report(count, began, cpu)


def report(count: int, began: float, cpu: float) -> None:
    took = time.perf_counter() - began
    load.report(count=count, rate=count / took, cpu=time.process_time() - cpu)


async def serve_grpcio() -> None:
    import grpc.aio

    pb = load.schema()
    kept = []
    for number in range(1, KEPT + 1):
        message = pb.Update(topic=topic(number), message=text(number), sequence=number)
        message.timestamp.GetCurrentTime()
        kept.append(message)

    async def subscribe(request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(int(request.client_id)):
            yield kept[number % KEPT]

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        subscribe,
        request_deserializer=pb.SubscribeRequest.FromString,
        response_serializer=pb.Update.SerializeToString,
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


def main() -> None:
    role, *words = sys.argv[1:]
    if role == "fill":
        asyncio.run(fill(words[0], int(words[1])))
    elif role == "read":
        from streamkit.transport import run

        run(read(words[0], words[1], int(words[2]), int(words[3])))
    elif role == "serve-grpcio":
        asyncio.run(serve_grpcio())
    else:
        asyncio.run(read_grpcio(int(words[0]), int(words[1])))


if __name__ == "__main__":
    main()
