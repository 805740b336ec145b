"""A process with some subscribers; each writes what it is given into a file of its own.

Lines: "SEQUENCE MESSAGE". A subscriber ends with the message "end".
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from streamkit.client import AsyncClient, ClientEvent
from streamkit.config import Backoff
from tests.proof.processes import die_with_parent


async def subscriber(address: str, path: str) -> int:
    resumed = 0

    def on_event(event: ClientEvent) -> None:
        nonlocal resumed
        resumed += event.kind == "resumed"

    quick = Backoff(first=0.05, longest=0.5)
    client = AsyncClient(address, backoff=quick, idle_timeout=5.0, on_event=on_event)
    with Path(path).open("w") as file:
        async with client, client.subscribe("p.>", "end", start="all") as updates:
            print(json.dumps("ready"), flush=True)
            while batch := await updates.receive():
                file.writelines(f"{update.sequence} {update.message}\n" for update in batch)
                if batch[-1].message == "end":
                    return resumed
    return resumed


async def main(settings: dict[str, Any]) -> None:
    work = [subscriber(settings["address"], path) for path in settings["files"]]
    print(json.dumps(sum(await asyncio.gather(*work))), flush=True)


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(json.loads(sys.argv[1])))
