"""The distribution as a stranger gets it: built once, installed into empty environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ROOT", "Environment", "build", "run"]

ROOT = Path(__file__).resolve().parents[1]
_OURS = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "UV_PRERELEASE")


def clean(**more: str) -> dict[str, str]:
    """An environment in which nothing of this checkout can be found."""
    return {key: value for key, value in os.environ.items() if key not in _OURS} | more


def run(
    *command: str | Path, cwd: Path, timeout: float = 600, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; AssertionError with what it said unless it succeeds."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean(**(env or {})), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{said}"
    return done


def build(folder: Path) -> Path:
    """Build the wheel from what git knows, so that nothing that lies about gets into it."""
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder / "wheel",
        source, cwd=folder,
    )  # fmt: skip
    [wheel] = (folder / "wheel").glob("streamkit_grpc-*.whl")
    return wheel


class Environment:
    """An empty one, into which things are installed from the index and from files."""

    def __init__(self, folder: Path, python: str | Path = sys.executable) -> None:
        self.bin = folder / "bin"
        self._folder = folder
        self._uv = shutil.which("uv")
        if self._uv:
            run(self._uv, "venv", "-q", "--python", python, folder, cwd=folder.parent)
        else:
            run(python, "-m", "venv", folder, cwd=folder.parent)

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def install(self, *what: str | Path, resolution: str = "highest") -> None:
        """Install; "lowest-direct" takes the oldest that pyproject.toml allows, and needs uv."""
        if self._uv:
            command: list[str | Path] = [self._uv, "pip", "install", "-q", "--python", self.python]
            command += ["--resolution", resolution]
        else:
            assert resolution == "highest"
            command = [self.python, "-m", "pip", "install", "-q"]
        run(*command, *what, cwd=self._folder)

    @property
    def path(self) -> str:
        """A PATH on which its commands come first, and none of this checkout's."""
        ours = str(Path(sys.executable).parent)
        parts = [part for part in os.environ["PATH"].split(os.pathsep) if part != ours]
        return os.pathsep.join([str(self.bin), *parts])
