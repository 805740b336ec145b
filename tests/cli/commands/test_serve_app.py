"""serve MODULE:NAME: what may be served, what it says to mistakes, and streams across an edit."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamkit
from streamkit.cli.exits import UsageError
from streamkit.cli.input.apps import load_app
from streamkit.errors import ConnectError, PreconditionError
from streamkit.generated.streamservice import SubscribeRequest
from tests.cli.tools import COMMAND, environment
from tests.cli.tools import streamkit as command
from tests.transport.client.talk import AskStub

ROOT = Path(__file__).resolve().parents[3]

APP = """
import contextlib
import streamkit
from tests.transport.client.talk import METADATA, Talk
from streamkit.generated.streamservice import WriteReply

class Shop(Talk):
    async def metadata(self, stream):
        await stream.recv_message()
        await stream.send_message(WriteReply(epoch=f"GREETING {streamkit.context().state}"))

@contextlib.asynccontextmanager
async def lifespan(server):
    print("opened", flush=True)
    yield "open"
    print("closed", flush=True)

async def fails():
    raise ValueError("no more")

handlers = [Shop]
one = Shop()
server = streamkit.Server([Shop()], port=1, lifespan=lifespan)
crashes = streamkit.Server([Shop()], background=[fails])
def factory():
    return server
async def later():
    return server
def wrong():
    return {}["nothing"]
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with `shop.py` and others that are broken."""
    (tmp_path / "app_of_tests.py").write_text(APP)
    (tmp_path / "app_that_needs.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "app_half.py").write_text("x = 1\nx = (\n")
    (tmp_path / "app_exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("app_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["handlers", "one", "Shop", "server", "factory"])
def test_handlers_servers_and_what_makes_them_can_be_served(name: str, folder: Path) -> None:
    assert isinstance(load_app(f"app_of_tests:{name}"), streamkit.Server)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("app_of_tests", "'app_of_tests' is not MODULE:NAME, such as shop:app"),
        ("app_of_tests.py:one", "'app_of_tests.py' is"),
        ("nowhere:app", "there is no module 'nowhere' in "),
        ("app_of_tests:handler", "app_of_tests has no 'handler'; there is 'handlers'"),
        ("app_of_tests:number", "app_of_tests:number is int, and not a streamkit.Server"),
        ("app_of_tests:later", "is asynchronous: use streamkit.Server(lifespan=...)"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(named: str, said: str, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_app(named)
    assert said.removesuffix(" is") in str(caught.value)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "app_that_needs:app",
            "cannot import app_that_needs: app_that_needs.py:1: ModuleNotFoundError:"
            " No module named 'nothing_of_that_name'",
        ),
        ("app_half:app", "app_half.py:2: SyntaxError: '(' was never closed"),
        ("app_exits:app", "app_exits.py:1: SystemExit: 3"),
        ("app_of_tests:wrong", "app_of_tests.py:30: KeyError: 'nothing'"),
    ],
)
def test_what_fails_inside_is_said_with_its_place(named: str, said: str, folder: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        load_app(named)
    assert said in str(caught.value)


class Serving:
    """`serve MODULE:NAME` in a folder, as a process."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=str(ROOT)),
        )
        self.said: list[str] = []
        self.wait_for("next, in another terminal")
        self.address = self.said[0].split()[-1]

    def wait_for(self, text: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(self.said)

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Read what is left; not by `communicate`, which forgets what was read ahead."""
        assert self.process.stdout is not None and self.process.stderr is not None
        with self.process.stdout, self.process.stderr:
            self.said += self.process.stderr.read().splitlines()
            return self.process.wait(30), self.process.stdout.read()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    server = Serving(*arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


async def greeting(address: str, **options: float) -> str:
    async with streamkit.Channel(address) as channel:
        return (await AskStub(channel).ask(SubscribeRequest(), **options)).epoch


async def test_a_server_made_in_code_with_flags_of_the_command_line(folder: Path) -> None:
    with serving("app_of_tests:server", "--port", "0") as server:
        assert await greeting(server.address) == "GREETING open"
        listed = await asyncio.to_thread(command, "status", server=server.address)
        assert "UNIMPLEMENTED" in listed.stderr or listed.returncode != 0, "there is no journal"
        assert server.stop() == (0, "opened\nclosed\n")
    refused = await asyncio.to_thread(command, "serve", "app_of_tests:one", "--host", "0.0.0.0")
    assert refused.returncode == 2 and "--tls-cert" in refused.stderr
    refused = await asyncio.to_thread(command, "serve", "--reload")
    assert refused.stderr == "streamkit: --reload is for a MODULE:NAME of your own\n"


async def test_what_fails_in_the_background_ends_the_server(folder: Path) -> None:
    with serving("app_of_tests:crashes", "--port", "0") as server:
        code, _ = await asyncio.to_thread(server.end)
    assert code == 1
    said = server.said[-1]
    assert said.startswith("streamkit: fails, in the background, has failed: ")
    assert said.endswith("app_of_tests.py:19: ValueError: no more")
    assert not any("Traceback" in line for line in server.said)


async def test_streams_survive_an_edit_and_a_mistake_changes_nothing(folder: Path) -> None:
    file = folder / "app_of_tests.py"
    seen: list[int] = []
    total = 0
    with serving("app_of_tests:one", "--port", "0", "--store", "a.db", "--reload") as server:
        async with streamkit.AsyncClient(server.address) as client:

            async def read() -> None:
                async with client.subscribe("numbers", start="all") as updates:
                    async for update in updates:
                        seen.append(int(update.message))  # noqa: PERF401  # looked at meanwhile

            reader = asyncio.create_task(read())

            async def until(text: str) -> None:
                nonlocal total
                async with asyncio.timeout(60):
                    said = ""
                    while said != text:
                        # A single call may meet the server that goes, and is told so.
                        with contextlib.suppress(ConnectError):
                            said = await greeting(server.address, timeout=20)
                        total += 1
                        await client.publish("numbers", str(total))

            await until("GREETING None")
            file.write_text(APP.replace("GREETING", "two"))
            await until("two None")
            file.write_text(APP + "x = (")
            await asyncio.to_thread(server.wait_for, "SyntaxError")
            assert await greeting(server.address) == "two None"
            file.write_text(APP.replace("GREETING", "three"))
            await until("three None")
            while len(seen) < total:
                assert not reader.done()
                await asyncio.sleep(0.01)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        assert seen == list(range(1, total + 1))
        assert server.stop()[0] == 0
    assert sum(" serves on " in line for line in server.said) == 1
