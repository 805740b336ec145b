"""Where StreamHandler keeps lines while its server is away."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import socket
import sys
import time
from collections.abc import Callable

import pytest

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.logging import StreamHandler
from streamkit.server import Server
from tests.client.blocking.logged import entries
from tests.client.servers import ThreadServer


def waited(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_wait_on_disk_while_the_server_is_away(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamkit.client.writing.spooled._PATIENCE", 0.0)
    with ThreadServer() as server:
        handler = StreamHandler("h-disk", server.address, capacity=500)
        log.addHandler(handler)
        log.info("0")
        handler.flush()
        server.do(server.proxy.refuse())
        numbers = iter(range(1, 5001))
        for number in numbers:
            log.info("%s", number)
            if number % 250 == 0:
                waited(lambda: not handler._queue)
        assert handler._spooled is not None
        spool = handler._spooled.spool
        assert spool.lines > 4000, "what memory does not hold"
        assert spool.path.stat().st_mode & 0o777 == 0o600
        server.do(server.proxy.heal())
        handler._shutdown_timeout = 30.0
        handler.flush()
        log.info("last")
        handler.flush()
        got = [entry.message for entry in entries(server, "h-disk")]
        assert got == [*map(str, range(5001)), "last"]
        assert spool.lines == 0
        assert spool.path.stat().st_size == 0
        handler.close()
        assert not spool.path.exists()
        assert (handler.dropped, handler.kept) == (0, 0)
    assert capsys.readouterr().err.count("cannot be reached") == 1


SCRIPT = """
import logging, sys, streamkit
handler = streamkit.StreamHandler("h-next", sys.argv[1], shutdown_timeout=float(sys.argv[2]))
logging.getLogger().addHandler(handler)
for line in sys.argv[3:]:
    logging.warning(line)
"""


async def test_what_is_left_at_the_end_is_brought_by_the_next_process() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"

    async def run(*arguments: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, address, *arguments),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 0
        return said.decode()

    said = await run("0.2", "one", "two")
    assert "2 log records of h-next wait in " in said
    assert "not delivered" not in said
    await run("0.2", "three")
    async with Server(journal=":memory:", port=port), AsyncClient(address) as client:
        said = await run("20", "four")
        assert said.count("delivered") <= 2
        got: list[str] = []
        async with client.logs("h-next", follow=True, start="all") as lines:
            async with asyncio.timeout(20):
                async for line in lines:
                    got.append(line.message)
                    if len(got) == 4:
                        break
        assert sorted(got) == ["four", "one", "three", "two"]
        assert got.index("one") < got.index("two")
        # What was brought is gone from the disk, and comes no second time.
        await run("20", "five")
        got = [line.message async for line in client.logs("h-next", lines=100)]
        assert sorted(got) == ["five", "four", "one", "three", "two"]


@pytest.mark.parametrize("spool", [0, 20_000])
def test_the_disk_has_a_bound_too(
    log: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spool: int,
) -> None:
    monkeypatch.setattr("streamkit.client.writing.spooled._PATIENCE", 0.0)
    handler = StreamHandler(
        "h-bound", "127.0.0.1:9", capacity=10, spool=spool, shutdown_timeout=0.05
    )
    log.addHandler(handler)
    for number in range(500):
        log.info("%s %s", number, "x" * 100)
    waited(lambda: handler.dropped > 0)
    if spool:
        waited(lambda: handler._spooled is not None and handler._spooled.spool.lines)
    if handler._spooled is not None and handler._spooled.spool.path.exists():
        assert handler._spooled.spool.path.stat().st_size <= spool
    log.removeHandler(handler)
    handler.close()
    said = capsys.readouterr().err
    if spool:
        assert 0 < handler.kept < 500
        assert f"{handler.kept} log records of h-bound wait in" in said
    else:
        assert handler.kept == 0
        assert 500 <= handler.dropped <= 502, "and the lines that would have told of it"
        assert "were not delivered" in said
