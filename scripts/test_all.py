"""`python scripts/test_all.py [PYTEST ARGS ...]`: the tests on every Python from 3.11 that is here.

Pythons are what `python3` and `python3.N` on the PATH and in the system's folders are, and what
pyenv, uv, asdf, mise, rye and conda have installed. Each gets an environment of its own under
`.venvs/`, made by this one's pip: an interpreter needs neither pip nor ensurepip.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venvs"
OLDEST = (3, 11)
NEWEST = 30
"""Minor versions that are looked for."""

ASKED = "import json, sys; print(json.dumps([*sys.version_info[:3], sys._base_executable]))"
SYSTEM = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/bin")
MANAGERS = (
    ("PYENV_ROOT", "~/.pyenv", "versions/*"),
    ("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python", "*"),
    ("ASDF_DATA_DIR", "~/.asdf", "installs/python/*"),
    ("MISE_DATA_DIR", "~/.local/share/mise", "installs/python/*"),
    ("RYE_HOME", "~/.rye", "py/*"),
    ("CONDA_ROOT", "~/miniconda3", "envs/*"),
)
"""The variable that says where a version manager keeps its Pythons, the usual place, and where in
it they are."""


@dataclass(frozen=True, order=True)
class Python:
    version: tuple[int, int, int]
    path: str

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


def candidates(search: str, places: Iterable[Path]) -> Iterator[Path]:
    """Every file that may be a Python; `search` is a PATH."""
    names = ["python3", *(f"python3.{minor}" for minor in range(OLDEST[1], NEWEST))]
    folders = [*search.split(os.pathsep), *SYSTEM]
    for folder in dict.fromkeys(filter(None, folders)):
        yield from (Path(folder, name) for name in names)
    for place in places:
        yield place / "bin" / "python3"


def managed() -> Iterator[Path]:
    """The folders of what version managers have installed."""
    for variable, usual, inside in MANAGERS:
        home = Path(os.environ.get(variable) or usual).expanduser()
        yield from sorted(home.glob(inside))


def pythons(files: Iterable[Path]) -> list[Python]:
    """The interpreters behind the files, each once, the oldest first."""
    found: dict[str, Python] = {}
    for file in files:
        if not os.access(file, os.X_OK):
            continue
        try:
            asked = subprocess.run(
                [str(file), "-I", "-c", ASKED], capture_output=True, text=True, timeout=20
            )
            *version, path = json.loads(asked.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            continue  # a shim without a version behind it, or no Python at all
        if tuple(version[:2]) >= OLDEST:
            real = os.path.realpath(path or file)
            found.setdefault(real, Python(tuple(version), real))
    return sorted(found.values())


def environment(python: Python) -> Path:
    """Make its environment, or bring it up to date; return the interpreter in it."""
    folder = ENVIRONMENTS / python.name
    inside = folder / "bin" / "python"
    if not inside.exists():
        subprocess.run([python.path, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(inside), "install", "--quiet", "--quiet"]
    packages = ["--editable", ".[speed,arrow]", "--group", "dev"]
    subprocess.run([*pip, *packages], cwd=ROOT, check=True)
    return inside


def main() -> int:
    found = pythons(candidates(os.environ.get("PATH", ""), managed()))
    print("testing on", *(python.name for python in found), flush=True)
    outcomes: list[tuple[Python, str, float]] = []
    for python in found:
        print(f"-- Python {python.name}: {python.path}", flush=True)
        begun = time.monotonic()
        try:
            inside = environment(python)
            done = subprocess.run([str(inside), "-m", "pytest", *sys.argv[1:]], cwd=ROOT)
            outcome = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
        except subprocess.CalledProcessError as error:
            outcome = f"NOT INSTALLED ({error.returncode})"
        outcomes.append((python, outcome, time.monotonic() - begun))
    for python, outcome, seconds in outcomes:
        print(f"{python.name:10} {outcome:20} {seconds:8.0f} s  {python.path}")
    return 0 if outcomes and all(outcome == "ok" for _, outcome, _ in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
