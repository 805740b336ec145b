"""A process with few file descriptors: connections never take the last of them."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.transport.raw import RawClient
from tests.transport.services import ask

pytest.importorskip("resource")

PROGRAM = """
import asyncio, logging, os, resource, sys
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 600))
from streamkit.transport import GrpcServer
from tests.transport.services import PlainCodec, Streams, Writes

async def main():
    server = GrpcServer((Streams(), Writes()), codec=PlainCodec())
    await server.start()
    print(server.addresses[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        os.close(os.open(os.devnull, os.O_RDONLY))  # what is kept for files is there
        print(server.connections, flush=True)
    await server.close()

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_connections_leave_some_for_others(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        loop,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address, limit = (await process.stdout.readline()).decode().split()
        assert limit == "600"  # raised as far as it goes

        async def open_there() -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n")
            return int(await process.stdout.readline())

        first = await RawClient().connect(address)
        stream = first.call(ask("idle:x"))
        await first.until(lambda: bool(first.answer(stream).data))
        others = [await RawClient().connect(address) for _ in range(650)]
        lasting = (await asyncio.gather(*map(still_there, others))).count(True)
        assert 400 < lasting < 525
        assert await open_there() == lasting + 1
        assert await first.pong()
        assert not first.answer(stream).trailers
        for other in others:
            await other.close()
        async with asyncio.timeout(5):
            while await open_there() > 1:
                await asyncio.sleep(0.01)
        again = await RawClient().connect(address)
        assert await again.pong()
        await again.close()
        await first.close()
        _, errors = await process.communicate(b"")
        (line,) = errors.decode().splitlines()
        assert line.startswith(
            "connection dropped: too few file descriptors for another connection, peer ipv4:"
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def still_there(client: RawClient) -> bool:
    try:
        return await client.pong()
    except ConnectionError:
        return False
