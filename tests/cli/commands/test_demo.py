"""demo: alive at once, four panes that name their commands, nothing left behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.tools import COMMAND, Terminal, environment, streamkit

VERBS = ("logs", "subscribe", "watch-job", "query")


def traces(tmp: Path) -> list[Path]:
    return list(tmp.iterdir())


def check_command(title: str) -> None:
    """The command of a title shows what its pane shows."""
    line = [*COMMAND, *shlex.split(title)[1:]]
    with Terminal(command=line) as terminal:
        if "query" in title:
            assert terminal.wait() == 0 and "category" in terminal.text
            return
        terminal.wait_until(lambda: len(terminal.text.strip()) > 20, what=title)
        terminal.interrupt()
        assert terminal.wait(10) in (0, 1, 130)


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (50, 200)])
def test_four_live_panes(tmp_path: Path, rows: int, columns: int) -> None:
    """On a terminal: all four panes have content, and the commands in their titles work."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary), "HOME": str(tmp_path)}
    started = time.monotonic()
    with Terminal("demo", rows=rows, columns=columns, env=env) as terminal:
        terminal.wait_until(lambda: b"\xe2\x95\xad" in terminal.raw, what="a pane")
        print(f"first motion after {time.monotonic() - started:.2f} s")
        terminal.wait_for('"price"', "running", "characters", " info ")
        frame = "\n".join(terminal.lines)
        titles = re.findall(r"─ (streamkit .*?) ─", frame)
        assert [title.split()[1] for title in sorted(titles)] == sorted(VERBS), frame
        if columns == 80:  # they are the same in every layout
            with ThreadPoolExecutor() as pool:
                list(pool.map(check_command, titles))
        terminal.interrupt()
        assert terminal.wait() == 0
        assert "streamkit serve" in terminal.text, "what to try next"
        assert b"\x1b[?1049l" in terminal.raw and b"\x1b[?25h" in terminal.raw, "as it was"
    assert traces(temporary) == [] and traces(tmp_path) == [temporary]


def test_plain_and_bounded(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = streamkit("demo", "--seconds", "2", env=env)
    assert done.returncode == 0
    panes = {line.split(" | ")[0].strip() for line in done.stdout.splitlines() if " | " in line}
    assert panes == {"logs", "updates", "jobs", "query"}
    assert "\x1b" not in done.stdout and traces(tmp_path) == []
    assert "left nothing behind" in done.stderr


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="no environment that is activated")
def test_who_cannot_type_streamkit_is_told_how(tmp_path: Path) -> None:
    """By the demo itself: the Ctrl-C that ends it ends make as well."""
    bin = Path(sys.executable).parent
    for path, cwd, expected in (
        ("/usr/bin:/bin", bin.parent, "  . bin/activate"),
        (str(bin), tmp_path, ""),
    ):
        env = environment(TMPDIR=str(tmp_path), HOME=str(tmp_path), PATH=path)
        done = subprocess.run(
            [*COMMAND, "demo", "--seconds", "0.2"],
            cwd=cwd, env=env, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        lines = done.stderr.splitlines()
        assert [line for line in lines if "activate" in line] == ([expected] if expected else [])
        assert "  streamkit serve" in lines


def test_keep(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "demo", "--keep", "--seconds", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
    )
    assert process.stderr is not None
    first = process.stderr.readline().strip()
    address = first.removeprefix("export STREAMKIT_SERVER=")
    assert address != first
    while "stays up" not in process.stderr.readline():
        assert process.poll() is None
    assert streamkit("status", server=address).returncode == 0
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    process.stderr.close()
    assert traces(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "demo", "--plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(tmp_path)),
    )
    assert process.stdout is not None and process.stdout.readline()
    os.kill(process.pid, number)
    process.stdout.read()
    assert process.wait(10) == (143 if number == signal.SIGTERM else 0)
    process.stdout.close()
    assert traces(tmp_path) == []
