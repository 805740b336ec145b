"""What is installed under which name: `streamkit` on PyPI is somebody else's program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import streamkit
from streamkit.terms import VERSION
from tests import wheels

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


# ---- installed as a stranger installs it; from the index, so these are in `make soak` ----

PRERELEASE = "betterproto==2.0.0b7"
OLD_UV = "uv==0.11.32"
"""The last that takes a release that is not final only where somebody names it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


def smoke(environment: wheels.Environment, folder: Path) -> None:
    """What a person does first, with what was installed."""
    folder.mkdir()
    demo = ("demo", "--plain", "--seconds", "2")
    shown = wheels.run(
        environment.bin / "streamkit", *demo, cwd=folder, env={"PATH": environment.path}
    )
    assert "real producers" in shown.stderr
    wheels.run(environment.bin / "streamkit", "new", "shop", cwd=folder)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("extras", ["", "[speed,arrow,jwt,metrics,gen]"])
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_lowest_and_the_highest_of_what_is_asked_for_work(
    wheel: Path, tmp_path: Path, resolution: str, extras: str
) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: it finds the lowest versions")
    environment = wheels.Environment(tmp_path / "environment")
    environment.install(f"{wheel}{extras}", PRERELEASE, resolution=resolution)
    smoke(environment, tmp_path / "work")
    if extras:
        project = tmp_path / "work" / "shop"
        said = wheels.run(
            environment.bin / "streamkit", "gen", "protos", "--out", "shop", "--check", cwd=project
        )
        assert "up to date" in said.stderr
        needed = "import pyarrow, duckdb, jwt, prometheus_client, uvloop"
        wheels.run(environment.python, "-c", needed, cwd=project)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_it_lives_beside_other_users_of_h2_and_grpc(wheel: Path, tmp_path: Path) -> None:
    environment = wheels.Environment(tmp_path / "environment")
    environment.install(wheel, "httpx[http2]", "hypercorn", "grpcio", "protobuf")
    code = (
        "import grpc, h2.connection, httpx, hypercorn, streamkit; streamkit.Server;"
        "httpx.Client(http2=True).close()"
    )
    wheels.run(environment.python, "-c", code, cwd=tmp_path)
    smoke(environment, tmp_path / "work")


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("uv", ["uv", OLD_UV])
def test_uv_old_and_new_runs_and_installs_it(wheel: Path, tmp_path: Path, uv: str) -> None:
    tools = wheels.Environment(tmp_path / "tools")
    tools.install(uv)
    program = tools.bin / "uv"
    shown = wheels.run(
        program, "tool", "run", "--with", PRERELEASE, "--from", wheel,
        "streamkit", "demo", "--plain", "--seconds", "2", cwd=tmp_path,
    )  # fmt: skip
    assert "real producers" in shown.stderr
    where = {"UV_TOOL_DIR": str(tmp_path / "t"), "UV_TOOL_BIN_DIR": str(tmp_path / "b")}
    wheels.run(program, "tool", "install", "--with", PRERELEASE, wheel, cwd=tmp_path, env=where)
    version = wheels.run(tmp_path / "b" / "streamkit", "--version", cwd=tmp_path)
    assert version.stdout.strip() == f"streamkit {VERSION}"
    # What docs/install.md tells about the pin is still so, of a package that an index has.
    bare = subprocess.run(
        [program, "tool", "run", "--find-links", wheel.parent, "--from", "streamkit-grpc",
         "streamkit", "--version"],
        cwd=tmp_path, env=wheels.clean(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (bare.returncode == 0) == (uv == "uv"), bare.stderr


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_pipx_and_pip_install_it(wheel: Path, tmp_path: Path) -> None:
    tools = wheels.Environment(tmp_path / "tools")
    tools.install("pipx")
    where = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "b")}
    wheels.run(tools.python, "-m", "pipx", "install", wheel, cwd=tmp_path, env=where)
    wheels.run(tmp_path / "b" / "streamkit", "--version", cwd=tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "plain"], check=True)
    plain = tmp_path / "plain" / "bin"
    wheels.run(plain / "pip", "install", "-q", wheel, cwd=tmp_path)
    wheels.run(plain / "streamkit", "--help", cwd=tmp_path)
