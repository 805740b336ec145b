"""The quick half of `health`: the same answers as the command's, in a fraction of its time."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from streamkit.cli.probe import probe
from streamkit.testing import serve
from tests.cli.tools import environment


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("STREAMKIT_SERVER", raising=False)
    monkeypatch.delenv("STREAMKIT_CONTEXT", raising=False)


async def ask(*arguments: str) -> int | None:
    return await asyncio.to_thread(probe, arguments)


async def test_serving_not_serving_and_not_there(
    capsys: pytest.CaptureFixture[str], nowhere: str
) -> None:
    from streamkit.server import Server

    async with Server(journal=":memory:", port=0) as server:
        assert await ask("-s", server.address) == 0
        assert await ask("streamservice.StreamService", "--server", server.address) == 0
        assert capsys.readouterr().out == "serving\nserving\n"
        assert await ask("nothing", f"--server={server.address}") == 1
        assert "'nothing'" in capsys.readouterr().err
        server.health.set_serving(False)
        assert await ask("-s", server.address) == 1
        assert capsys.readouterr().out == "not serving\n"
    assert await ask("-s", nowhere) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


async def test_over_tls_and_a_unix_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with serve(ssl=context, host="localhost") as address:
        assert await ask("-s", address, "--ca", str(tmp_path / "ca.pem")) == 0
        assert await ask("-s", address, "--tls") == 3  # an authority that nobody knows
    async with serve(path=tmp_path / "socket") as address:
        assert await ask("-s", address) == 0
    assert capsys.readouterr().out == "serving\nserving\n"


async def test_what_answers_in_another_language(capsys: pytest.CaptureFixture[str]) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100)
        writer.close()

    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await ask("-s", f"127.0.0.1:{port}", "--connect-timeout", "2s") == 3
    assert "cannot connect" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-s", "a:1,b:2"],
        ["-s", "dns:///a:1"],
        ["--context", "x"],
        ["--help"],
        ["a", "b"],
        ["-s"],
        ["ä", "-s", "a:1"],
        ["--connect-timeout", "1h30m", "-s", "a:1"],
        ["--ca", "/nothing", "-s", "a:1"],
    ],
)
def test_what_is_left_to_the_command(arguments: list[str]) -> None:
    assert probe(arguments) is None


def test_a_context_is_left_to_the_command(tmp_path: Path) -> None:
    (tmp_path / "streamkit").mkdir()
    (tmp_path / "streamkit" / "contexts.toml").touch()
    assert probe([]) is None


def test_it_imports_next_to_nothing(server: str) -> None:
    code = """
import sys
sys.argv = ["streamkit", "health", "-s", sys.argv[1]]
from streamkit.cli import main
try:
    main()
except SystemExit as end:
    heavy = {"betterproto", "typer", "rich", "grpclib", "h2", "asyncio"} & set(sys.modules)
    print(sorted(heavy), end.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, server], capture_output=True, text=True, env=environment()
    )
    assert done.stdout == "serving\n[] 0\n", done
