"""Many subscribers in one process: ADDRESSES, how many, and how many updates each waits for."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from streamkit.client import AsyncClient, Subscription

_OF_EACH = 500
"""Subscribers of one client, which share its connection."""


async def main(addresses: str, subscribers: int, updates: int) -> None:
    async with AsyncExitStack() as stack:
        streams = []
        for number in range(subscribers):
            if number % _OF_EACH == 0:
                client = await stack.enter_async_context(AsyncClient(addresses))
            streams.append(await stack.enter_async_context(client.subscribe("many.>")))
        print("ready", flush=True)

        async def read(stream: Subscription) -> None:
            count = 0
            while count < updates:
                count += len(await stream.receive())

        await asyncio.gather(*map(read, streams))
        print("done", flush=True)
        await asyncio.sleep(600)  # they stay until whoever started this ends it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
