"""Every example runs, against one server, and does what its first line says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trustme

from tests.cli.tools import ServerProcess, environment, invoke
from tests.doors.http import ask
from tests.doors.test_events import take

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = ServerProcess(tmp_path_factory.mktemp("store") / "store.db", "--web")
    for number in (1, 2, 3):
        assert invoke("publish", "orders.eu", f"order {number}", server=server.address).stdout
    yield server.address
    assert server.stop() == 0


@pytest.fixture
def run(web: str) -> Callable[..., str]:
    def run_example(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
            env=environment(web), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_example


def test_each_is_short_and_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path
        assert f"| `{path.name}` |" in listed


def test_there_are_eight() -> None:
    assert len(list(EXAMPLES.glob("*.py"))) >= 8


def test_own_service(run: Callable[..., str]) -> None:
    assert run("own_service.py") == "3\n4\n5\n"


def test_mutual_tls(run: Callable[..., str], tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    paths = [ca]
    for name in ("localhost", "till-7.shop.example"):
        made = authority.issue_cert(name)
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        made.private_key_and_cert_chain_pem.write_to_path(str(cert))
        made.private_key_pem.write_to_path(str(key))
        paths += [cert, key]
    said = run("mutual_tls.py", *map(str, paths), "till-7.shop.example")
    assert said.startswith("stored as 1\nnot allowed to publish to 'prices.eu'")


def test_progress(run: Callable[..., str], web: str) -> None:
    assert run("progress.py") == "done\n"
    assert "example-import" in invoke("jobs", server=web).stdout


def test_log_handler(run: Callable[..., str], web: str) -> None:
    run("log_handler.py")
    logged = invoke("logs", "example-api", "-o", "raw", server=web).stdout
    assert "an order" in logged and "ZeroDivisionError" in logged


def test_frames(run: Callable[..., str]) -> None:
    said = run("frames.py")
    assert "orders.eu        3" in said and "newest: (3,)" in said


def test_events(run: Callable[..., str]) -> None:
    assert run("events.py", "orders.*", "3") == "1 order 1\n2 order 2\n3 order 3\n"


async def test_fastapi_app_ends_its_streams_when_it_is_told_to_go(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", "0", "--app-dir", EXAMPLES,
        env=environment(STORE=str(tmp_path / "events.db")), stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"running on" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        address = line.decode().split("http://")[1].split()[0]
        async with ask(address, "POST", "/orders/eu?text=shoes") as reply:
            assert await reply.body() == b'{"number":1}'
        async with AsyncExitStack() as stack:
            target = "/streams/v1/updates?topic=orders.*&last=1"
            readers = [
                await stack.enter_async_context(ask(address, "GET", target)) for _ in range(100)
            ]
            for reader in readers:
                [event] = await take(reader, 1)
                assert '"message":"shoes"' in event["data"]
            process.terminate()
            for reader in readers:
                assert b"event: reconnect" in await reader.body()
            async with asyncio.timeout(5):  # uvicorn itself looks ten times a second
                await process.wait()
        assert b"Traceback" not in await process.stderr.read()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_on_update_goes_on_where_it_stopped(web: str, tmp_path: Path) -> None:
    async def until(text: str) -> None:
        hook = await asyncio.create_subprocess_exec(
            sys.executable, EXAMPLES / "on_update.py", "orders.eu", tmp_path / "place",
            "sh", "-c", 'echo "$MESSAGE" | tee -a seen',
            env=environment(web), cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert hook.stdout is not None
        async for line in hook.stdout:
            if line.decode().rstrip() == text:
                break
        hook.kill()
        await hook.wait()

    await until("order 2")
    await until("order 3")
    seen = (tmp_path / "seen").read_text().splitlines()
    # Each once, but for what was not yet written down when the hook was killed.
    assert list(dict.fromkeys(seen)) == ["order 1", "order 2", "order 3"]
    assert seen == sorted(seen)
