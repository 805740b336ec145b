"""One client, several addresses: whoever answers serves it, and streams go on where they were."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.client import Client
from streamkit.client.blocking.logging import StreamHandler
from streamkit.errors import ConnectError, InvalidArgumentError
from streamkit.testing import FaultProxy
from tests.client.servers import QUICK, ThreadServer, memory_server

NOBODY = "127.0.0.1:1"


async def test_a_stream_goes_on_by_the_other_way() -> None:
    """Two ways to one server; each is cut in turn under a reader and a producer."""
    async with (
        memory_server() as server,
        FaultProxy(server) as one,
        FaultProxy(server) as two,
        AsyncClient(f"{one.address},{two.address}", backoff=QUICK) as client,
    ):
        got: list[str] = []
        async with client.subscribe("n", start="all") as updates, client.publisher() as publisher:
            for round_ in range(6):
                away = one if one.connections else two
                await away.refuse()
                for number in range(50):
                    await publisher.send("n", str(50 * round_ + number))
                await publisher.flush()
                while len(got) < 50 * (round_ + 1):
                    got += [update.message for update in await updates.receive()]
                await away.heal()
        assert got == [str(number) for number in range(300)]
        assert one.accepted
        assert two.accepted


async def test_single_calls_find_the_one_that_is_there() -> None:
    async with memory_server() as server:
        for target in (f"{NOBODY},{server}", f"{server},{NOBODY}"):
            async with AsyncClient(target) as client:
                assert await client.publish("a", "1") > 0
    async with AsyncClient(f"{NOBODY},127.0.0.1:2", backoff=QUICK) as client:
        with pytest.raises(ConnectError) as caught:
            await client.publish("a", "1")
        for address in (NOBODY, "127.0.0.1:2"):
            assert f"{address}: Connection refused" in caught.value.message


async def test_an_address_that_is_none_is_said_at_once() -> None:
    async with AsyncClient("localhost:50051,host:abc") as client:
        with pytest.raises(InvalidArgumentError, match="host:abc"):
            await client.publish("a", "1")


def test_code_without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadServer() as server:
        target = f"{NOBODY},{server.address}"
        with Client(target) as client:
            assert client.publish("a", "1") > 0
        monkeypatch.setenv("STREAMKIT_SERVER", target)
        handler = StreamHandler(service="several")
        log = logging.Logger("several")
        log.addHandler(handler)
        log.warning("one line")
        log.removeHandler(handler)
        handler.close()
        with Client() as client:
            assert [entry.message for entry in client.logs("several")] == ["one line"]


def test_the_command_line() -> None:
    with ThreadServer() as server:
        command = [sys.executable, "-m", "streamkit", "publish", "a", "hello", "-s"]
        for target, code in (
            (f"{NOBODY},{server.address}", 0),
            (f"dns:///{server.address}", 0),
            ("host:abc", 2),
        ):
            done = subprocess.run([*command, target], capture_output=True, text=True, check=False)
            assert done.returncode == code, (target, done.stdout, done.stderr)
            assert "Traceback" not in done.stderr
