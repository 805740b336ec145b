"""Colour and animation are decided once, apart from each other, and never by rich."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest

import streamkit.cli
from streamkit.cli.output.terminal import look_at
from streamkit.cli.rendering.console import console_for


class _Stream(io.StringIO):
    def __init__(self, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@pytest.mark.parametrize(
    ("tty", "environ", "colour", "animation"),
    [
        (True, {"TERM": "xterm"}, True, True),
        (False, {"TERM": "xterm"}, False, False),
        (True, {"TERM": "dumb"}, False, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (True, {"TERM": "xterm", "CI": "true"}, True, False),
        (True, {"TERM": "xterm", "CI": "false"}, True, True),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, True, False),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1", "CI": "true"}, True, False),
        (True, {"TERM": "xterm", "FORCE_COLOR": "1", "CI": "true"}, True, False),
        (False, {"FORCE_COLOR": "0"}, False, False),
        (True, {"TERM": "xterm", "TTY_INTERACTIVE": "0"}, True, False),
        (True, {"TERM": "xterm", "CI": "1", "TTY_INTERACTIVE": "1"}, True, True),
        (False, {"TTY_INTERACTIVE": "1"}, False, False),
    ],
)
def test_the_decision(tty: bool, environ: dict[str, str], colour: bool, animation: bool) -> None:
    terminal = look_at(_Stream(tty), environ)
    assert (terminal.is_tty, terminal.colour, terminal.animation) == (tty, colour, animation)


def test_an_explicit_choice_of_colour_wins() -> None:
    assert look_at(_Stream(False), {"NO_COLOR": "1"}, colour="always").colour
    assert not look_at(_Stream(True), {"FORCE_COLOR": "1"}, colour="never").colour


def test_rich_does_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    stream = _Stream(False)
    console = console_for(stream, look_at(stream, {}))
    assert not console.is_interactive and not console.is_terminal
    console.print("x", style="bold red")
    assert stream.getvalue() == "x\n"


def test_a_closed_stream_is_no_terminal() -> None:
    stream = _Stream(True)
    stream.close()
    io.StringIO.close(stream)
    assert look_at(io.StringIO(), {}).is_tty is False


def test_rich_is_imported_by_the_renderers_only() -> None:
    root = Path(streamkit.cli.__file__).parent
    for path in root.rglob("*.py"):
        if path.is_relative_to(root / "rendering"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "rich" for name in names), path
