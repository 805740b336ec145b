"""What is written about the commands is true: help for all, the README's lines exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

from streamkit.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("name", GROUP.commands)
def test_every_command_and_option_has_help(name: str) -> None:
    command = GROUP.commands[name]
    assert command.help and command.help.splitlines()[0].endswith(".")
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.opts}"


def test_every_command_of_the_readme_exists() -> None:
    blocks = re.findall(r"```(?:sh|console|text)\n(.*?)```", README, re.DOTALL)
    found = set()
    for line in "\n".join(blocks).splitlines():
        words = line.removeprefix("$ ").strip()
        if not words.startswith("streamkit "):
            continue
        name, *rest = shlex.split(words.split(" | ")[0], comments=True)[1:]
        assert name in GROUP.commands or name.startswith("-"), line
        found.add(name)
        if name not in GROUP.commands:
            continue
        known = {opt for p in GROUP.commands[name].params for opt in (*p.opts, *p.secondary_opts)}
        for word in rest:
            if word == "--":
                break
            if re.fullmatch(r"-\w|--[\w-]+", word):
                assert word in known, line
    assert {"serve", "demo", "run", "watch-job", "logs", "query", "publish", "subscribe"} <= found


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
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert time.monotonic() - started < 5
