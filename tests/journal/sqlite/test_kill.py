"""A process that dies in the middle of writing loses nothing that it acknowledged."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from pathlib import Path

import pytest

from streamkit.generated.streamservice import Update
from streamkit.journal import ProducerId, Stream, open_journal
from streamkit.testing.journal.support import stored, texts, topics

WRITERS = 4

PROGRAM = """
import asyncio, itertools, sys
from streamkit.generated.streamservice import Update
from streamkit.journal import ProducerId, open_journal

async def write(journal, writer, request):
    for request in itertools.count(request):
        updates = [Update(topic=f"w{writer}", message=f"{request}.{n}") for n in range(request % 7)]
        done = await journal.append_updates(updates, ProducerId(f"w{writer}", request))
        print(writer, request, done.first, done.count, flush=True)

async def main(path, *requests):
    async with await open_journal(path) as journal:
        await asyncio.gather(*(write(journal, n, int(at)) for n, at in enumerate(requests)))

asyncio.run(main(*sys.argv[1:]))
"""


async def write_until_killed(path: str, requests: list[int], acknowledgements: int) -> list[str]:
    """Run the program from the given requests on; kill it after so many acknowledgements."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, path, *map(str, requests), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines = []
    async for line in process.stdout:
        lines.append(line.decode())
        if len(lines) == acknowledgements:
            process.kill()
    await process.wait()
    return [line for line in lines if line.endswith("\n")]


async def prove(path: str, kills: int, most: int) -> None:
    acknowledged: dict[tuple[int, int], tuple[int, int]] = {}
    requests = [1] * WRITERS
    chance = random.Random(4)
    for _ in range(kills):
        for line in await write_until_killed(path, requests, chance.randint(20, most)):
            writer, request, first, count = map(int, line.split())
            acknowledged[writer, request] = (first, count)
            # The writer goes back to its last acknowledged request: the next process repeats it.
            requests[writer] = request
    async with await open_journal(path) as journal:
        for (writer, request), (first, count) in list(acknowledged.items())[-50:]:
            again = [Update(topic="repeated", message="x")] * count
            repeat = await journal.append_updates(again, ProducerId(f"w{writer}", request))
            assert (repeat.first, repeat.count) == (first, count)
        entries = await stored(journal, topics())
        assert journal.bounds(Stream.UPDATES).newest == len(entries)
    assert [e.sequence for e in entries] == list(range(1, len(entries) + 1))
    seen = [(e.key, text) for e, text in zip(entries, texts(entries), strict=True)]
    for (writer, request), (first, count) in acknowledged.items():
        found = seen[first - 1 : first - 1 + count]
        assert found == [(f"w{writer}", f"{request}.{n}") for n in range(count)]
    assert len(set(seen)) == len(seen)
    with sqlite3.connect(path) as tool:
        assert tool.execute("pragma integrity_check").fetchone() == ("ok",)
    tool.close()
    print(
        f"{kills} kills: {len(acknowledged)} requests acknowledged, {len(entries)} records stored,"
        " acknowledged lost 0, duplicates 0, gaps 0"
    )


async def test_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    await prove(str(tmp_path / "store.db"), kills=4, most=400)


@pytest.mark.soak
async def test_kill_in_the_middle_of_writing_often(tmp_path: Path) -> None:
    await prove(str(tmp_path / "store.db"), kills=50, most=4000)
