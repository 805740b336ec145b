"""examples/compare: the same service in five ways. Each runs, as long as docs/compare.md says.

They all take a token, write a line for each call, end in order, and their readers go on after the
server was away.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.tools import wait_for

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "compare"
NEEDS = {
    "ours": (),
    "grpcio_aio": ("grpc",),
    "grpclib_stock": ("grpclib", "google.protobuf"),
    "connect": ("connectrpc", "uvicorn", "protoc_gen_connectrpc"),
    "faststream_nats": ("faststream", "nats", "nats_server"),
}
NAMES = {
    "ours": "streamkit",
    "grpcio_aio": "grpcio",
    "grpclib_stock": "grpclib",
    "connect": "connectrpc",
    "faststream_nats": "FastStream",
}
WITHOUT_HUB = ("ours", "faststream_nats")


def steps(name: str) -> list[str]:
    """What a person types, from nothing to a server."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def lines_of_code(path: Path) -> int:
    """Lines with code on them: no comments, docstrings and blank lines."""
    text = path.read_text()
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    found = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in (*kinds, tokenize.ENDMARKER)
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(found - docstrings)


def total(name: str) -> int:
    hub = 0 if name in WITHOUT_HUB else lines_of_code(FOLDER / "hub.py")
    return lines_of_code(FOLDER / f"{name}.py") + hub


def test_the_page_counts_right() -> None:
    page = (ROOT / "docs" / "compare.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.py` \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert [(name, int(lines), int(typed)) for name, lines, typed in rows] == [
        (name, total(name), len(steps(name))) for name in NEEDS
    ]


class Stack:
    """One of them in a folder of its own, made by its own steps."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        for file in (f"{name}.py", "hub.py", "orders.proto"):
            shutil.copy(FOLDER / file, folder / file)
        (folder / "gen").mkdir()
        self.token = "secret"
        self.log = folder / "log"
        self.running: list[subprocess.Popen[str]] = []
        *making, self.serving = [line for line in steps(name) if not line.startswith("pip ")]
        if name == "faststream_nats":
            making, self.serving = [], making[0]
        for line in making:
            subprocess.run(
                line, shell=True, cwd=folder, env=self.env, check=True, capture_output=True
            )
        if (folder / "token").exists():
            self.token = (folder / "token").read_text().strip()

    @property
    def env(self) -> dict[str, str]:
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "TOKEN": self.token, "PATH": paths, "PYTHONPATH": str(ROOT)}

    def program(self, *words: str) -> list[str]:
        return [sys.executable, f"{self.name}.py", *words]

    def serve(self) -> subprocess.Popen[str]:
        command = os.path.expandvars(self.serving.replace("50051", self.port))
        command = command.replace("$TOKEN", self.token).replace("python ", f"{sys.executable} ")
        with self.log.open("a") as log:
            server = subprocess.Popen(
                ["env", *shlex.split(command)], cwd=self.folder, env=self.env, text=True,
                stdout=log, stderr=log,
            )  # fmt: skip
        self.running.append(server)
        wait_for(self.answers)
        return server

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self.port))) == 0

    def place(self, item: str, token: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.program("place", self.port, item), cwd=self.folder,
            env=self.env | ({"TOKEN": token} if token else {}),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def watch(self) -> subprocess.Popen[str]:
        watching = subprocess.Popen(
            self.program("watch", self.port), cwd=self.folder, env=self.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.running.append(watching)
        return watching


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Stack]]:
    made: list[Stack] = []

    def stack(name: str) -> Stack:
        for module in NEEDS[name]:
            if importlib.util.find_spec(module) is None and not shutil.which(
                module.replace("_", "-"), path=str(Path(sys.executable).parent)
            ):
                pytest.skip(f"{module} is not installed: it is in the group `bench`")
        made.append(Stack(name, tmp_path))
        return made[-1]

    yield stack
    for process in [process for one in made for process in one.running]:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", NEEDS)
def test_a_reader_goes_on_after_the_server_was_away(
    name: str, make: Callable[[str], Stack]
) -> None:
    stack = make(name)
    server = stack.serve()
    watching = stack.watch()
    assert watching.stdout is not None
    done = (0, -signal.SIGABRT) if name == "connect" else (0,)
    """Its client's own threads abort some processes when Python ends; the order is placed then."""
    if name == "faststream_nats":  # who watches makes the stream
        wait_for(lambda: stack.place("tea").returncode == 0)
    else:
        assert stack.place("tea").returncode in done
    assert watching.stdout.readline() == "1 tea\n"
    assert stack.place("milk", token="another").returncode != 0
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) in (0, -signal.SIGTERM, 1)
    stack.serve()
    assert stack.place("milk").returncode in done
    number = 2 if name == "faststream_nats" else 1  # a broker keeps it; the others begin a new life
    assert watching.stdout.readline() == f"{number} milk\n"
    if name != "faststream_nats":
        assert re.search("Place|/place", stack.log.read_text(), re.IGNORECASE)
        assert re.search("UNAUTHENTICATED", stack.log.read_text(), re.IGNORECASE)
