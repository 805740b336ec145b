"""A publisher process: numbers its messages, notes in a file of its own which were acknowledged.

Most go through the pipeline; every `single_every`-th is a call of its own, whose sequence is noted.
Lines of the file: "ack N" (messages 0 to N-1 of the pipeline are acknowledged), "one ID SEQUENCE".
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from streamkit.client import AsyncClient
from streamkit.config import Backoff
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import Producer, PublishRequest, Update, WriteReply
from tests.proof.processes import die_with_parent


async def main(settings: dict[str, Any]) -> None:
    name, total, rate = settings["name"], settings["total"], settings["rate"]
    quick = Backoff(first=0.05, longest=0.5)
    loop = asyncio.get_running_loop()
    with Path(settings["file"]).open("w", buffering=1) as notes:
        async with AsyncClient(settings["address"], backoff=quick, idle_timeout=5.0) as client:
            await client.ping()
            print(json.dumps("ready"), flush=True)  # now the server may be killed
            async with client.publisher() as publisher:
                noted = 0
                began = loop.time()

                def note() -> None:
                    nonlocal noted
                    if publisher.acknowledged > noted:
                        noted = publisher.acknowledged
                        notes.write(f"ack {noted}\n")
                        print(json.dumps(noted), flush=True)

                for number in range(total):
                    await publisher.send(f"p.{name}", f"{name}:{number}")
                    if number % 100 == 0:
                        note()
                        ahead = number / rate - (loop.time() - began) if rate else 0
                        await asyncio.sleep(max(0.0, ahead))
                    if number % settings["single_every"] == 0:
                        identity = f"{name}:single{number}"
                        sequence = await single(client, f"p.{name}", identity)
                        notes.write(f"one {identity} {sequence}\n")
                await publisher.flush()
                note()
                assert publisher.dropped == 0


async def single(client: AsyncClient, topic: str, message: str) -> int:
    """One acknowledged call; an outage longer than its five attempts is no reason to give up."""
    request = PublishRequest(
        producer=Producer(id=f"{client.client_id}-{message}", sequence=1),
        updates=[Update(topic=topic, message=message)],
    )
    while True:
        try:
            path = "/streamservice.ProducerService/Publish"
            return (await client._unary(path, request, WriteReply)).updates.first
        except ConnectError:
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(json.loads(sys.argv[1])))
