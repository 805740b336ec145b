"""What it costs to begin, next to what nobody can save: ratios in one run, the least of several."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

EMPTY = """
import typer

app = typer.Typer()


@app.command()
def one() -> None:
    "One."


@app.command()
def two() -> None:
    "Two."


app()
"""
ROUNDS = 30


def seconds(*command: str) -> float:
    """Of the processor, for one process: what others cost that end meanwhile is not counted."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, env=env)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return used.ru_utime + used.ru_stime


def ratio(ours: tuple[str, ...], theirs: tuple[str, ...], enough: float) -> float:
    """The least of ours over the least of theirs; as many rounds as it takes to be small enough."""
    least, found = [9.0, 9.0], 9.0
    for _ in range(ROUNDS):
        least = [min(least[0], seconds(*ours)), min(least[1], seconds(*theirs))]
        found = least[0] / least[1]
        if found < enough:
            break
    print(f"{found:.2f}x: {least[0] * 1000:.0f} ms, {least[1] * 1000:.0f} ms")
    return found


def test_help_costs_little_more_than_that_of_an_empty_application(tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text(EMPTY)
    assert ratio(("-m", "streamkit", "--help"), (str(empty), "--help"), 1.5) < 1.5


def test_help_imports_nothing_that_only_commands_need() -> None:
    code = """
import sys
from streamkit.cli import main
try:
    main(["--help"])
except SystemExit:
    late = {"asyncio", "json", "socket", "ssl", "tomllib"}
    print(*sorted(late & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert done.stderr == "\n"


def test_importing_streamkit_costs_no_more_than_importing_asyncio_twice() -> None:
    assert ratio(("-c", "import streamkit"), ("-c", "import asyncio"), 2.0) < 2.0


def test_what_another_process_costs_that_ends_meanwhile_is_not_counted() -> None:
    other = subprocess.Popen([sys.executable, "-c", "sum(range(30_000_000))"])
    reaping = threading.Thread(target=other.wait)
    reaping.start()
    there = f"os.path.exists('/proc/{other.pid}')"
    found = seconds("-c", f"import os, time\nwhile {there}: time.sleep(0.02)")
    reaping.join()
    assert found < 0.2
