"""The vocabulary of the command line: one meaning for each flag, kept in a file to compare with.

After a change that is meant: UPDATE_HELP=1 pytest tests/cli/test_help.py, and read the difference.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from streamkit.cli.app import app
from tests.cli.tools import invoke

GOLDEN = Path(__file__).with_name("help.txt")
GROUP: Any = typer.main.get_command(app)
ONE_MEANING = {
    "-n": "--last",
    "-f": "--follow",
    "-F": "--field",
    "-o": "--output",
    "-l": "--level",
    "-d": "--database",
    "-q": "--quiet",
    "-s": "--server",
}


def commands(group: Any = GROUP, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def described(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"  {parameter.metavar or parameter.name}: {parameter.help or ''}".rstrip(": ")
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    hidden = " (hidden)" if parameter.hidden else ""
    return f"  {names}{value}{hidden}: {parameter.help}"


def vocabulary() -> str:
    parts = []
    for name, command in commands():
        first = command.help.splitlines()[0]
        parts.append("\n".join([f"{name}: {first}", *map(described, command.params)]))
    return "\n\n".join(parts) + "\n"


def test_the_vocabulary_is_the_one_that_was_agreed_on() -> None:
    shown = vocabulary()
    if os.environ.get("UPDATE_HELP"):
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


def test_a_short_flag_means_one_thing() -> None:
    meanings: dict[str, set[str]] = defaultdict(set)
    for _, command in commands():
        for parameter in command.params:
            if parameter.param_type_name != "option" or parameter.hidden:
                continue
            long = next((name for name in parameter.opts if name.startswith("--")), "")
            for name in parameter.opts:
                if not name.startswith("--"):
                    meanings[name].add(long)
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}
    assert {name: next(iter(meanings[name])) for name in ONE_MEANING} == ONE_MEANING


def test_every_format_offers_json_and_every_command_colour() -> None:
    for name, command in commands():
        offered = {long: p for p in command.params for long in p.opts}
        assert "--color" in offered and "--no-color" in offered, name
        if "--output" in offered and "FORMAT" not in offered["--output"].metavar:
            assert {"json", "jsonl"} <= set(offered["--output"].metavar.split("|")), name


def test_flags_show_no_kind() -> None:
    for name in ("run", "logs", "subscribe", "jobs", "serve", "ship"):
        done = invoke(name, "--help")
        assert "--no-color" in done.stdout and "<bool>" not in done.stdout, name
    assert "<bool>" not in invoke("--help").stdout
