"""How commands begin and end where the terminal or the streams are not as usual."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.tools import COMMAND, PATIENCE, Terminal, environment, invoke, wait_for


def shell(line: str, server: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("STREAMKIT", " ".join(COMMAND))],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(server),
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_dev_null(server: str, tmp_path: Path, closed: str) -> None:
    marker = tmp_path / "ran"
    done = shell(f"STREAMKIT run -- sh -c 'echo x; echo y >&2; echo z > {marker}' {closed}", server)
    assert done.returncode == 0 and marker.read_text() == "z\n", done.stderr
    assert set(done.stdout + done.stderr) <= set("xy\n")


def test_other_commands_with_closed_streams(server: str) -> None:
    assert shell("STREAMKIT publish t.a hi 2>&-", server).returncode == 0
    assert shell("STREAMKIT ship closed <&-", server).returncode == 0
    assert shell("STREAMKIT status >&-", server).stderr == ""


@pytest.mark.parametrize("line", [("query", "-"), ("publish", "a", "-")])
def test_ctrl_c_while_something_is_typed(server: str, line: tuple[str, ...]) -> None:
    with Terminal(*line, server=server) as terminal:
        terminal.type(b"select 1\n")
        terminal.wait_for("select 1")
        wait_for(lambda: b"streamkit-intake" in threads(terminal.process.pid))
        terminal.interrupt()
        assert terminal.wait() in (130, -signal.SIGINT)
        assert "Traceback" not in terminal.text


def threads(pid: int) -> bytes:
    """The names of the threads, or all that can be hoped for where they have none."""
    names = [path.read_bytes() for path in Path(f"/proc/{pid}/task").glob("*/comm")]
    return b"streamkit-intake" if len(names) > 1 else b""


def test_ctrl_z_gives_the_cursor_back(server: str) -> None:
    line = [*COMMAND, "run", "-q", "-j", "stopped", "--", "sleep", "60"]
    job = subprocess.Popen(line, env=environment(server))
    try:
        with Terminal("watch-job", "stopped", server=server) as terminal:
            terminal.wait_for("stopped", "running")
            before = len(terminal.raw)
            # In a session of its own nothing can stop it for long: it goes on at once.
            terminal.process.send_signal(signal.SIGTSTP)
            given_back = re.compile(rb"\x1b\[\?25h.*\x1b\[\?25l", re.DOTALL)
            terminal.wait_until(lambda: bool(given_back.search(terminal.raw, before)))
            terminal.interrupt()
            assert terminal.wait() == 130
    finally:
        job.terminate()
        job.wait(PATIENCE)


@pytest.mark.parametrize("number", [0, 1, 3, 30, 150])
def test_ctrl_c_from_the_first_moment_says_nothing(number: int) -> None:
    """The signal comes with the n-th import after the command's own first module was found."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    entry, function = project["project"]["scripts"]["streamkit"].split(":")
    code = (
        "import os, sys\n"
        "class Finder:\n"
        f"    left = {number}\n"
        "    ours = False\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if self.ours:\n"
        "            self.left -= 1\n"
        "            if self.left == -1: os.kill(os.getpid(), 2)\n"
        f"        self.ours = self.ours or name == {entry!r}\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['streamkit', 'status']\n"
        f"from {entry} import {function}; {function}()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_nothing_is_imported_before_ctrl_c_is_settled() -> None:
    code = "import sys; before = {*sys.modules}; import streamkit; print({*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
    assert done.stdout == b"{'streamkit'}\n"


def test_an_address_that_is_none_is_a_usage_error() -> None:
    for address in ("host:abc", "host:99999"):
        done = invoke("status", "-s", address)
        assert done.returncode == 2 and "is not an address" in done.stderr
    assert invoke("serve", "--port", "99999").returncode == 2
    done = invoke("publish", "a", "x", "--key", "k")
    assert done.returncode == 2 and "--cert" in done.stderr


def test_tls_to_a_server_without_it_says_so(server: str) -> None:
    done = invoke("status", "--tls", server=server)
    assert done.returncode == 3 and "leave out --tls" in done.stderr
