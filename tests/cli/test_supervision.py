"""A service manager, played: what it hears and in which order, and the socket that it gives."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main

from streamkit.access.file import add_token
from streamkit.cli.app import app
from tests.cli.tools import COMMAND, environment, streamkit, wait_for

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

if not hasattr(socket, "AF_UNIX"):
    pytest.skip("no unix sockets here", allow_module_level=True)


@contextmanager
def running(*arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--store", ":memory:", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment() | env,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("more", [(), ("--workers", "1")], ids=["one", "workers"])
def test_the_manager_hears_in_order(more: tuple[str, ...], tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)

        def hear() -> str:
            heard.append(manager.recv(4096).decode())
            return heard[-1]

        with running(
            *("--port", "0", *more),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="200000",
        ) as process:
            first = hear()
            assert first.startswith("READY=1\nSTATUS=serves on 127.0.0.1:")
            for _ in range(3):
                assert hear() == "WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while hear() == "WATCHDOG=1":
                pass
            assert heard[-1].startswith("STOPPING=1\n")
            assert process.wait(20) == 0
            manager.settimeout(0.2)
            with pytest.raises(TimeoutError):
                while True:
                    hear()
    after = heard[heard.index(next(line for line in heard if line.startswith("STOPPING"))) + 1 :]
    assert {line.split("=")[0] for line in after} <= {"EXTEND_TIMEOUT_USEC", "WATCHDOG"}
    assert "EXTEND_TIMEOUT_USEC=10000000" in after


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one", "workers"])
def test_a_hangup_takes_over_what_it_can_and_tells_the_rest(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    file, log = tmp_path / "streamkit.toml", tmp_path / "log"
    access = tmp_path / "access.toml"
    access.touch(0o600)
    file.write_text('[serve]\nretain = "1d"\nmax-queries = 4\n')
    heard: list[str] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        log.open("w") as errors,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)

        def until(start: str) -> None:
            heard.append("")
            while not heard[-1].startswith(start):
                heard[-1] = manager.recv(4096).decode()

        arguments = ["--port", "0", "--retention", "topics=a,age=1h", "--config", str(file)]
        arguments += ["--access", str(access), *workers]
        process = subprocess.Popen(
            [*COMMAND, "serve", "--store", str(tmp_path / "x.db"), *arguments],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            env=environment() | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        try:
            until("READY=1")
            for text in (
                '[serve]\nretain = "2d"\nmax-queries = 5\nlog-format = "json"\ngrace = "1s"\n'
                'metrics = "127.0.0.1:0"\n',
                "[serve]\nretian = 1\n",
            ):
                file.write_text(text)
                process.send_signal(signal.SIGHUP)
                until("RELOADING=1\nMONOTONIC_USEC=")
                until("READY=1")
            # Each process that serves logs in the format of the new file, and at its level.
            add_token(access, "one", ["reader"])
            wait_for(lambda: '"logger": "streamkit.access.gate"' in log.read_text())
            file.write_text('[serve]\nlog-level = "error"\nlog-format = "json"\n')
            process.send_signal(signal.SIGHUP)
            until("READY=1")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    text = log.read_text()
    assert "read the settings again: --retain, --grace, --log-format, --max-queries" in text
    assert "only a restart changes --metrics" in text
    assert "keeping the former settings: " in text and "did you mean serve.retain?" in text
    assert '"logger": "streamkit.cli.reconfiguring"' in text
    assert text.count("read the settings again") == 1  # the last is of no error


@pytest.mark.parametrize("more", [(), ("--workers", "1")], ids=["one", "workers"])
def test_the_socket_of_the_manager_is_served(more: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        script = 'exec env LISTEN_PID=$$ LISTEN_FDS=1 "$@" 3<&' + str(listener.fileno())
        process = subprocess.Popen(
            [
                "bash",
                "-c",
                script,
                "-",
                *COMMAND,
                "serve",
                "--store",
                ":memory:",
                "--port",
                "1",
                *more,
            ],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            # The connection waits in the socket until the server is there.
            done = streamkit("publish", "a", "1", "--connect-timeout", "20s", server=address)
            assert done.returncode == 0, done.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                process.kill()
            _, said = process.communicate()
    assert f"serves on {address}" in said


def test_the_socket_of_the_manager_is_checked() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        script = 'exec env LISTEN_PID=$$ LISTEN_FDS=1 "$@" 3<&' + str(listener.fileno())
        refused = subprocess.run(
            ["bash", "-c", script, "-", *COMMAND, "serve", "--store", ":memory:"],
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
        )
    assert refused.returncode == 2
    assert "0.0.0.0 is open to other machines" in refused.stderr


def test_what_is_deployed_names_options_that_exist() -> None:
    group: Any = typer.main.get_command(app)
    known = {opt for param in group.commands["serve"].params for opt in param.opts}
    for name in ("streamkit.service", "Dockerfile", "compose.yaml", "kubernetes.yaml"):
        text = re.sub(r"(?m)^ *(RUN|COPY|HEALTHCHECK|#).*$", "", (DEPLOY / name).read_text())
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        assert "--store" in used and used <= known, (name, used - known)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="checks units")
def test_the_units_are_understood(tmp_path: Path) -> None:
    for name in ("streamkit.service", "streamkit.socket"):
        shutil.copy(DEPLOY / name, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not [line for line in done.stderr.splitlines() if "streamkit." in line], done.stderr
