"""`streamkit new`: a project whose tests pass, that serves, and that its reader may change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.errors import AlreadyExistsError, InvalidArgumentError
from streamkit.scaffold.generate import generate
from streamkit.scaffold.new import new_project
from tests.cli.tools import COMMAND, environment, streamkit

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_new_project_says_what_is_next_and_its_tests_pass(tmp_path: Path) -> None:
    done = streamkit("new", str(tmp_path / "Tea-Shop"))
    assert done.returncode == 0 and done.stdout == ""
    assert "streamkit serve tea_shop.service:app --reload" in done.stderr
    told = done.stderr.splitlines()[-3:]
    assert len({line.rindex("   ") for line in told}) == 1, "under each other"
    folder = tmp_path / "Tea-Shop"
    tested = run(folder, "pytest", "-q", "-W", "error")
    assert tested.returncode == 0 and "3 passed" in tested.stdout, tested.stdout + tested.stderr
    for tool in (("ruff", "check", "."), ("ruff", "format", "--check", ".")):
        checked = run(folder, *tool)
        assert checked.returncode == 0, checked.stdout
    text = "".join(p.read_text() for p in folder.rglob("*") if p.suffix in (".py", ".md", ".toml"))
    assert "PACKAGE" not in text and "PROJECT" not in text
    again = streamkit("new", str(folder))
    assert again.returncode == 1 and again.stderr.endswith("is there and not empty\n")


def test_it_serves_and_its_client_sees_what_it_ordered(tmp_path: Path) -> None:
    new_project(tmp_path / "shop")
    server = subprocess.Popen(
        [*COMMAND, "serve", "shop.service:app", "--port", "0"],
        cwd=tmp_path / "shop",
        env=environment(PYTHONPATH=str(ROOT)),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    with server, server.stderr:
        address = server.stderr.readline().split()[-1]
        client = subprocess.Popen(
            [sys.executable, "-m", "shop.client", "tea", "milk"],
            cwd=tmp_path / "shop",
            env=environment(address, PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        with client, client.stdout:
            assert [client.stdout.readline() for _ in range(2)] == ["1 tea\n", "2 milk\n"]
            client.kill()
        server.terminate()
    assert server.returncode == 0


def test_its_generated_code_is_what_gen_writes_now(tmp_path: Path) -> None:
    project = new_project(tmp_path / "shop")
    made = generate([tmp_path / "shop" / "protos"], tmp_path / "shop" / "shop", write=False)
    assert made.changed == ()
    assert project.package == "shop"


@pytest.mark.parametrize("name", ["1st", "a b", "import", "json", "streamkit", "tests"])
def test_a_name_that_no_package_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        new_project(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").touch()
    with pytest.raises(AlreadyExistsError):
        new_project(tmp_path / "shop")
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine.txt"]


def test_it_is_made_without_loading_what_serves(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from streamkit.scaffold.new import new_project;"
        "new_project(pathlib.Path('shop'));"
        "print([n for n in ('grpclib.client', 'betterproto', 'h2', 'sqlite3') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
