"""What all stacks serve and measure, so that their figures can be put side by side."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"
TOPIC = "sensors/building-7/room-12"
TEXT = "temperature 21.5 C, humidity 40 per cent, all is well"
"""Together an Update of about 80 bytes."""
BIG = "x" * 1024 * 1024
SECONDS = 2.5
"""The length of a run; shorter ones mislead."""
PACE = 0.005
FAN_BURST = 100
"""Messages published at once in the fan-out."""


def schema() -> Any:
    """google.protobuf's classes of the product's schema, from the folder of this run."""
    sys.path.insert(0, os.environ["BENCH_SCHEMA"])
    import stream_service_pb2

    return stream_service_pb2


def raise_file_limit() -> None:
    """Allow as many open connections as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def wait_for_the_end() -> None:
    """Block until the program that started this one closes our input."""
    sys.stdin.buffer.read()


def announce(port: int) -> None:
    """Tell the program that started this one that the server listens."""
    print(port, flush=True)


def report(**figures: float) -> None:
    """Print the figures of a client program."""
    print(json.dumps(figures), flush=True)


async def measured_client(
    task: str, number: int, subscribe: Callable[[str, int], AsyncIterator[Any]]
) -> None:
    """The client program of an asyncio stack: `subscribe(topic, count)` is one call of it."""
    if task == "latency":
        micros = [since(update.topic) async for update in subscribe("pace", number)]
        report(**latencies(micros))
        return
    loop = asyncio.get_running_loop()

    async def receive(count: int) -> None:
        got = 0
        async for _ in subscribe(task, count):
            got += 1
        assert got == count

    def blocking(count: int) -> None:
        asyncio.run_coroutine_threadsafe(receive(count), loop).result()

    measure = payload_rate if task == "big" else rate
    report(**await asyncio.to_thread(measure, blocking))


def rate(receive: Callable[[int], Any]) -> dict[str, float]:
    """Messages per second of `receive(count)`, over a run of a few seconds."""
    return _measured(receive, 1000, 4000)


def payload_rate(receive: Callable[[int], Any]) -> dict[str, float]:
    """Megabytes per second of `receive(count)` messages of one mebibyte."""
    found = _measured(receive, 5, 20)
    found["rate"] *= len(BIG) / 1e6
    return found


def sized_rate(receive: Callable[[int], Any], size: int) -> dict[str, float]:
    """Megabytes per second of `receive(count)` messages of so many bytes."""
    found = _measured(receive, 5, max(20, len(BIG) * 16 // size))
    found["rate"] *= size / 1e6
    return found


def _measured(receive: Callable[[int], Any], warm_up: int, count: int) -> dict[str, float]:
    """The rate of a run that is long enough; all messages received, and our CPU time for them."""
    cpu = time.process_time()
    receive(warm_up)
    messages = warm_up
    while True:
        start = time.perf_counter()
        receive(count)
        elapsed = time.perf_counter() - start
        messages += count
        if elapsed >= 0.8 * SECONDS:
            return {
                "rate": count / elapsed,
                "messages": messages,
                "cpu": time.process_time() - cpu,
            }
        count = max(count + 1, int(count * min(20.0, 1.05 * SECONDS / elapsed)))


def latencies(micros: list[float]) -> dict[str, float]:
    """Median and 99th percentile, the first messages left out."""
    settled = sorted(micros[20:])
    return {"p50": statistics.median(settled), "p99": settled[int(len(settled) * 0.99)]}


def since(stamp: str) -> float:
    """Microseconds since a stamp that another process of this machine has made."""
    return (time.monotonic_ns() - int(stamp)) / 1000


def stamp() -> str:
    return str(time.monotonic_ns())
