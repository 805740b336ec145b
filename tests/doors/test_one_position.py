"""One position behind every door: a reader changes doors at random while its server is killed."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from streamkit import AsyncClient, Position, after
from streamkit.codec import decode, encode
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.generated.streamservice import StartFrom, SubscribeRequest, Update
from tests.cli.tools import COMMAND, environment
from tests.doors.http import ask
from tests.processes import ServerProcess

SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"
Place = tuple[str, int]
Door = Callable[[str, Place], AsyncIterator[Update]]


async def by_grpc(address: str, place: Place) -> AsyncIterator[Update]:
    async with (
        AsyncClient(address) as client,
        client.subscribe("orders", start=after(Position(*place))) as updates,
    ):
        async for update in updates:
            yield update


async def by_events(address: str, place: Place) -> AsyncIterator[Update]:
    last = f"{place[0]}.{place[1]}"
    async with ask(address, "GET", "/v1/updates?topic=orders", last_event_id=last) as reply:
        async for event in reply.events():
            if "data" in event and event.get("event", "message") == "message":
                yield Update().from_json(event["data"])


async def by_grpc_web(address: str, place: Place) -> AsyncIterator[Update]:
    start = StartFrom(after=WirePosition(*place))
    body = encode(SubscribeRequest(topics=["orders"], start=start))
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    kind = "application/grpc-web+proto"
    async with ask(address, "POST", SUBSCRIBE, framed, content_type=kind) as reply:
        data = b""
        while more := await reply.chunk():
            data += more
            while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5], "big"):
                size = int.from_bytes(data[1:5], "big")
                flag, message, data = data[0], data[5 : 5 + size], data[5 + size :]
                if flag & 0x80:
                    return
                yield decode(Update, message)


async def by_connect(address: str, place: Place) -> AsyncIterator[Update]:
    asked = {"topics": ["orders"], "start": {"after": {"epoch": place[0], "sequence": place[1]}}}
    body = json.dumps(asked).encode()
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    kind = "application/connect+json"
    async with ask(address, "POST", SUBSCRIBE, framed, content_type=kind) as reply:
        data = b""
        while more := await reply.chunk():
            data += more
            while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5], "big"):
                size = int.from_bytes(data[1:5], "big")
                flag, message, data = data[0], data[5 : 5 + size], data[5 + size :]
                if flag & 2:
                    return
                yield Update().from_json(message.decode())


async def by_command(address: str, place: Place) -> AsyncIterator[Update]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "subscribe", "orders", "--from-seq", str(place[1] + 1), "-o", "jsonl",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=environment(address),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            told = json.loads(line)
            yield Update(message=told["message"], sequence=told["sequence"])
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


DOORS: list[Door] = [by_grpc, by_events, by_grpc_web, by_connect]


async def _wander(records: int, kills: int, doors: list[Door], folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"journal": str(folder / "store.db"), "port": port, "web": True}
    server = ServerProcess(**settings)
    await server.start()
    killed = 0

    async def kill() -> None:
        nonlocal server, killed
        killed += 1
        server.process.kill()
        await server.process.communicate()
        server = ServerProcess(**settings)
        await server.start()

    try:
        async with AsyncClient(server.address) as client:
            epoch = (await client.status()).epoch
            async with client.publisher() as publisher:
                for n in range(records):
                    await publisher.send("orders", str(n))
            address = server.address
            seen: list[int] = []
            while len(seen) < records:
                door = dice.choice(doors)
                wanted = dice.randint(1, max(2, records // 20))
                with suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
                    read: AsyncIterator[Update] = door(address, (epoch, len(seen)))
                    async with asyncio.timeout(60):
                        async for update in read:
                            assert update.sequence == len(seen) + 1
                            seen.append(int(update.message))
                            wanted -= 1
                            if not wanted or len(seen) == records:
                                break
                    close: Callable[[], Awaitable[None]] = read.aclose  # type: ignore[attr-defined]  # a generator
                    await close()
                if killed < kills and len(seen) >= (killed + 1) * records // (kills + 1):
                    await kill()
        assert seen == list(range(records))
        assert killed == kills
    finally:
        with suppress(ProcessLookupError):
            server.process.kill()
        await server.process.communicate()


async def test_a_reader_changes_doors_and_misses_nothing(tmp_path: Path) -> None:
    await _wander(200, 2, DOORS, tmp_path, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
async def test_a_thousand_records_twenty_kills_five_doors(tmp_path: Path, seed: int) -> None:
    await _wander(1000, 20, [*DOORS, by_command], tmp_path, seed)
