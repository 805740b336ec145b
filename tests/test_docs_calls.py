"""The example of docs/calls.md, as a reader would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "calls.md").read_text()
SERVE = """
import asyncio, streamkit
from service import Shop

async def main():
    async with streamkit.Server([Shop()], port=0) as server:
        print(server.address, flush=True)
        await server.serve()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page, with what is generated from its schema."""
    files = re.findall(r"<!-- ([\w.]+) -->\n```\w+\n(.*?)```", PAGE, re.S)
    assert [name for name, _ in files] == [
        "shop.proto",
        "service.py",
        "test_shop.py",
        "script.py",
    ]
    for name, text in files:
        (tmp_path / name).write_text(text)
    run(tmp_path, "-m", "streamkit", "gen", "shop.proto", "--out", ".")
    return tmp_path


def run(folder: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_of_the_page_pass(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    said = run(folder, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider")
    assert "2 passed" in said
    for line in ("/shop.Shop/Place OK", "/shop.Shop/Watch OK", "/shop.Shop/Place NOT_FOUND"):
        assert line in said


def test_the_script_of_the_page_works(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            said = run(folder, "script.py", address)
            more = f"import asyncio, sys; sys.argv[1:] = ['{address}']; import script; "
            asked = run(folder, "-c", more + f"print(asyncio.run(script.ask('{address}')))")
        finally:
            server.terminate()
    assert said.splitlines() == ["2 x pear for nobody", "plum 0", "plum 1"]
    assert asked.splitlines()[-1] == "1 x apple for nobody"
