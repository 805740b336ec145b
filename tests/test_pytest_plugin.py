"""The plug-in for pytest: each fixture in a session of its own, and what it costs when unused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.tools import environment

ROOT = Path(__file__).resolve().parents[1]

TESTS = """
import pytest
import streamkit
from streamkit.generated.streamservice import SubscribeRequest
from tests.transport.client.talk import AskStub, Talk


@pytest.fixture
def streamkit_handlers():
    return [Talk()]


def test_a_server_and_a_client(streamkit_client, streamkit_server):
    assert streamkit_client.publish("a", "x") == 1
    with streamkit.Client(streamkit_server) as other:
        assert other.status().version


async def test_faults_between_a_client_and_the_server(streamkit_faults):
    async with streamkit_faults() as proxy, streamkit.AsyncClient(proxy.address) as client:
        await client.publish("a", "1")
        proxy.reset()
        async with client.subscribe("a", start="all") as updates:
            async for update in updates:
                if update.message == "2":
                    break
                assert update.message == "1"
                proxy.reset()
                await client.publish("a", "2")


async def test_handlers_of_ones_own(streamkit_channel, streamkit_server):
    async with streamkit_channel(Talk()) as channel:
        assert (await AskStub(channel).ask(SubscribeRequest(), timeout=9)).epoch == " 9"
    async with streamkit.Channel(streamkit_server) as channel:
        assert (await AskStub(channel).ask(SubscribeRequest(), timeout=9)).epoch == " 9"


@pytest.fixture
def streamkit_roles():
    return '[role.till]\\npublish = ["orders.*"]\\nmethods = ["/test.Talk/*"]'


async def test_roles(streamkit_access, streamkit_server, streamkit_client, streamkit_channel):
    assert streamkit_client.status().version  # an administrator
    till = streamkit_access("till")
    async with streamkit.AsyncClient(streamkit_server, token=till) as client:
        assert await client.publish("orders.eu", "7") == 1
        with pytest.raises(streamkit.AuthError, match="prices"):
            await client.publish("prices", "7")
    with pytest.raises(streamkit.AuthError, match="not authenticated"):
        async with streamkit.AsyncClient(streamkit_server) as client:
            await client.status()
    with pytest.raises(streamkit.InvalidArgumentError, match="no role 'tilt'"):
        streamkit_access("tilt")
    async with streamkit_channel(Talk(), role="till") as channel:
        assert (await AskStub(channel).ask(SubscribeRequest(), timeout=9)).epoch == " 9"
    async with streamkit_channel(Talk(), role="reader") as channel:
        with pytest.raises(streamkit.AuthError, match="not allowed"):
            await AskStub(channel).ask(SubscribeRequest(), timeout=9)


async def test_a_role_without_a_server(streamkit_channel):
    async with streamkit_channel(Talk(), role="till") as channel:
        assert (await AskStub(channel).ask(SubscribeRequest(), timeout=9)).epoch == " 9"


@pytest.mark.anyio
async def test_anyio(streamkit_channel):
    async with streamkit_channel(Talk()) as channel:
        assert (await AskStub(channel).ask(SubscribeRequest(), timeout=9)).epoch == " 9"
"""


def test_every_fixture_in_a_session_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nfilterwarnings = error\n"
        "asyncio_default_fixture_loop_scope = function\nmarkers = anyio\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout + done.stderr


def test_a_session_that_does_not_use_it_imports_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import streamkit.pytest_plugin;"
        "print(sorted(n for n in set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "['streamkit', 'streamkit.pytest_plugin']\n"
