"""SIGTERM at any moment of the start ends a server in good order, with all that it has begun."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.tools import COMMAND, PATIENCE, environment, wait_for
from tests.workers.serving import gone

APP = """
import asyncio, contextlib, os, signal
import streamkit

def now(moment):
    with open("pids", "a") as pids:
        print(os.getpid(), file=pids)
    if os.environ["MOMENT"] != moment:
        return False
    owner = os.getppid() if "STREAMKIT_WORKER" in os.environ else os.getpid()
    os.kill(owner, signal.SIGTERM)
    return True

@contextlib.asynccontextmanager
async def lifespan(server):
    worker = os.environ.get("STREAMKIT_WORKER", "alone")
    if now(f"start {worker}"):
        await asyncio.sleep(1000)  # what begins slowly is cut short
    yield
    with open("closed", "a") as closed:
        print(worker, file=closed)

now("import")
server = streamkit.Server(lifespan=lifespan)
"""


@pytest.mark.parametrize(
    ("moment", "options", "closed"),
    [
        ("import", ["--workers", "2"], ""),
        ("start 2", ["--workers", "2"], "1\n"),
        ("start alone", [], ""),
    ],
)
def test_a_signal_while_it_starts(
    tmp_path: Path, moment: str, options: list[str], closed: str
) -> None:
    (tmp_path / "app_that_ends.py").write_text(APP)
    (tmp_path / "closed").touch()
    done = subprocess.run(
        [*COMMAND, "serve", "app_that_ends:server", "--port", "0", "--store", "a.db", *options],
        cwd=tmp_path,
        env=environment(MOMENT=moment, PYTHONPATH="."),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert (tmp_path / "closed").read_text() == closed
    for pid in (tmp_path / "pids").read_text().split():
        wait_for(lambda pid=pid: gone(int(pid)))  # type: ignore[misc]  # mypy sees no pid
