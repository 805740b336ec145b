"""What it costs to begin, next to what nobody can save: ratios in one run, the least of several."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
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
ROUNDS = 10


def seconds(*command: str) -> float:
    """Of the processor, for one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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


def test_importing_streamkit_costs_no_more_than_importing_asyncio_twice() -> None:
    assert ratio(("-c", "import streamkit"), ("-c", "import asyncio"), 2.0) < 2.0
