"""A hook: run a command for every update of a topic. The position is kept in a file after the
command has run, so that each update is met at least once, whatever is started again.

    python on_update.py TOPIC PLACE COMMAND...      $TOPIC and $MESSAGE are set for it
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import streamkit


async def main(topic: str, place: Path, command: list[str]) -> None:
    start: streamkit.StartAt = "all"
    if place.exists():
        epoch, number = place.read_text().split()
        start = streamkit.Position(epoch, int(number))
    async with (
        streamkit.AsyncClient() as client,
        client.subscribe(topic, start=start) as updates,
    ):
        async for update in updates:
            told = {"TOPIC": update.topic, "MESSAGE": update.message}
            await asyncio.to_thread(subprocess.run, command, env=os.environ | told, check=True)
            position = updates.position
            assert position is not None  # something was received
            place.write_text(f"{position.epoch} {position.sequence}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
