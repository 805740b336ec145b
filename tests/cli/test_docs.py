"""What is written about the commands is true: help for all, the README's lines exist."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer.main

from streamkit.cli.app import app
from tests.cli.tools import environment, wait_for

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("name", GROUP.commands)
def test_every_command_and_option_has_help(name: str) -> None:
    command = GROUP.commands[name]
    assert command.help and command.help.splitlines()[0].endswith(".")
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page: Path) -> None:
    blocks = re.findall(r"```(sh|console)\n(.*?)```", page.read_text(), re.DOTALL)
    typed = [
        line.removeprefix("$ ")
        for kind, block in blocks
        for line in block.splitlines()
        if kind == "sh" or line.startswith("$ ")
    ]
    found = set()
    for line in typed:
        words = re.split(r" \| |; ", line.removeprefix(".venv/bin/"))[0]
        if not words.startswith("streamkit "):
            continue
        name, *rest = shlex.split(words.replace("\\", ""), comments=True)[1:]
        assert name in GROUP.commands or name.startswith("-"), line
        found.add(name)
        if name not in GROUP.commands or hasattr(GROUP.commands[name], "commands"):
            continue
        known = {opt for p in GROUP.commands[name].params for opt in (*p.opts, *p.secondary_opts)}
        for word in rest:
            if word == "--":
                break
            if re.fullmatch(r"-\w|--[\w-]+", word):
                assert word in known, line
    usual = {"serve", "demo", "run", "watch-job", "logs", "query", "publish", "subscribe"}
    assert page.name != "README.md" or usual <= found


def test_every_command_is_in_the_readme() -> None:
    for name in GROUP.commands:
        assert re.search(rf"\b{re.escape(name)}\b", README), name


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_help_is_quick_because_it_loads_nothing() -> None:
    code = (
        "import sys; from streamkit.cli.app import app; import typer.main;"
        "typer.main.get_command(app);"
        "heavy = ('grpclib.client', 'h2', 'betterproto', 'rich', 'pyarrow', 'sqlite3');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def lines_of(page: str, *beginnings: str) -> list[list[str]]:
    """The words of the command lines that begin so, in the order of the page."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
             for line in block.splitlines()]  # fmt: skip
    return [shlex.split(line, comments=True) for line in lines if line.startswith(beginnings)]


def test_the_readmes_project_is_made_and_generated_again(tmp_path: Path) -> None:
    new, gen = lines_of(README, "streamkit new", "streamkit gen")
    for command in (new, gen):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "orders: up to date" in done.stderr


def test_the_tutorials_service_works(tmp_path: Path) -> None:
    """The schema is compiled, the server serves, the client prints and lives on, `call` answers."""
    port = free_port()
    for name in ("shop.proto", "server.py", "client.py"):
        match = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", TUTORIAL, re.DOTALL)
        assert match, name
        (tmp_path / name).write_text(match[1].replace("50052", str(port)))
    env = environment(PYTHONPATH=str(ROOT))

    def start(*command: str) -> subprocess.Popen[str]:
        words = [word.replace("50052", str(port)) for word in command]
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    gen, serve, describe, call = lines_of(TUTORIAL, "streamkit ")
    with start("-m", *gen) as generating:
        assert generating.communicate(timeout=60)[0] == ""
    assert generating.returncode == 0
    written = [line for line in (tmp_path / "client.py").read_text().splitlines() if line.strip()]
    assert len(written) <= 12
    server = start("-m", *serve)
    try:
        wait_for(lambda: answers(port))
        client = start("client.py")
        try:
            assert client.stdout is not None
            assert _orders(client, 5) == [1, 2, 3, 4, 5]
            [curl] = lines_of(TUTORIAL, "curl ")
            address = f"http://{curl[-1]}&after=none.0".replace("50052", str(port))
            with urllib.request.urlopen(address, timeout=60) as events:
                assert [next(events)[:4] for _ in range(3)] == [b"retr", b"\n", b"even"]
                assert b"another life" in next(events)
                assert next(events) == b"\n" and next(events).endswith(b".1\n")
                assert b'"item":"item 1"' in next(events)
            described, _ = start("-m", *describe).communicate(timeout=60)
            assert "Watch(shop.WatchRequest) -> stream shop.Order" in described
            called, _ = start("-m", *call).communicate(timeout=60)
            assert len(called.splitlines()) == 3
            # Another life of the hub numbers its orders anew: it is read from its beginning.
            server.kill()
            server.communicate()
            server = start("-m", *serve)
            numbers = _orders(client, until=3)
            again = numbers.index(1)
            assert numbers[:again] == list(range(6, 6 + again)), "what the old life had sent"
            assert numbers[again:] == [1, 2, 3]
        finally:
            client.kill()
            client.communicate()
    finally:
        server.terminate()
        server.communicate(timeout=20)
    assert server.returncode == 0


def _orders(client: subprocess.Popen[str], count: int = 0, until: int = 0) -> list[int]:
    """The numbers of the next orders: so many, or up to a small one."""
    assert client.stdout is not None
    numbers: list[int] = []
    for line in client.stdout:
        number, _, item = line.rstrip().partition(" ")
        assert item == f"item {number}"
        numbers.append(int(number))
        if len(numbers) == count or numbers[-1] == until:
            break
    return numbers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
