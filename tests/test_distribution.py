"""What is installed under which name: `streamkit` on PyPI is somebody else's program."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import streamkit
from streamkit.terms import VERSION

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_FOREIGN = re.compile(
    r"(?:pip3? install|uv add|uv tool install|pipx install|pipx run|uvx|--from|--with)"
    r"(?:\s+-[\w-]+)*\s+['\"\\]*streamkit(?![\w-])"
)


def test_no_text_tells_to_install_the_other_streamkit() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".binpb", ".png") or not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        # A line that goes on in the next string of the code is one line.
        text = re.sub(r"\"\s*\n\s*f?\"", "", text)
        found += [f"{name}: {match[0]}" for match in _FOREIGN.finditer(text)]
    assert found == []


def test_the_pattern_knows_the_forms() -> None:
    for wrong in (
        "pip install streamkit",
        "pip install 'streamkit[arrow]'",
        "pip install -U streamkit",
        "uvx streamkit demo",
        "uvx --from streamkit demo",
        'uv add "streamkit"',
    ):
        assert _FOREIGN.search(wrong), wrong
    for right in (
        "pip install 'streamkit-grpc[arrow]'",
        "uvx --from streamkit-grpc streamkit demo",
    ):
        assert not _FOREIGN.search(right), right


def test_names_and_versions_agree() -> None:
    assert PROJECT["name"] == "streamkit-grpc"
    assert list(PROJECT["scripts"]) == ["streamkit"]
    assert PROJECT["version"] == streamkit.__version__ == VERSION
