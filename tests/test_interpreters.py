"""`make test-all` finds each Python once, and nothing that is none."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from scripts.test_all import candidates, pythons


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_each_python_is_found_once(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "versions"))
    this = f'exec {sys.executable} "$@"'
    script(first / "python3", this)
    script(first / "python3.12", this)
    script(second / "python3.11", "exit 127")  # a shim without a version behind it
    script(second / "python3.13", "echo nonsense")
    script(second / "python3.14", "echo '[3, 10, 1, \"/old\"]'")
    script(other / "3.99.1" / "bin" / "python3", "echo '[3, 99, 1, \"/new/python3\"]'")
    (second / "python3").mkdir()
    search = os.pathsep.join(map(str, (first, second, first)))
    files = [file for file in candidates(search, [other / "3.99.1"]) if tmp_path in file.parents]
    found = pythons(files)
    assert [python.name for python in found] == [platform.python_version(), "3.99.1"]
    assert os.path.samefile(found[0].path, sys.executable)


def test_version_managers_are_asked(tmp_path: Path) -> None:
    (tmp_path / "versions" / "3.12.1" / "bin").mkdir(parents=True)
    text = "from scripts.test_all import managed; print(*managed(), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert str(tmp_path / "versions" / "3.12.1") in done.stdout.split("\n")
