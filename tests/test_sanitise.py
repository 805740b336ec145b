"""Foreign text made safe: ten thousand hostile lines, no harmful character left."""

from __future__ import annotations

import io
import json
import re

import pytest

from streamkit.cli.output.streams import Output
from streamkit.cli.output.terminal import Terminal
from streamkit.cli.rendering.console import console_for, plain
from streamkit.cli.rendering.records import log_text, update_text
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.sanitise import json_text, sanitise, sanitise_lines
from tests.cli import hostile

CORPUS = hostile.CORPUS + hostile.lines(10_000)


def test_nothing_harmful_is_left() -> None:
    for line in CORPUS:
        safe = sanitise(line)
        assert not hostile.HARMFUL.search(safe) and "\n" not in safe
        assert hostile.is_visible(safe)
        assert sanitise(safe) == safe


def test_what_is_harmless_stays() -> None:
    assert sanitise("tab\tünï 日本 🎉 [/x] [b]") == "tab\tünï 日本 🎉 [/x] [b]"
    assert sanitise("\x1b[2J\x9b\u202e\n") == "\\x1b[2J\\x9b\\u202e\\x0a"


@pytest.mark.parametrize(
    "hidden", ["\u00ad", "\u200b", "\u2060", "\ufeff", "\u061c", "\u180e", "\U000e0041", "\u3164"]
)
def test_what_shows_nothing_is_shown(hidden: str) -> None:
    safe = sanitise(f"pay{hidden}pal")
    assert safe != "paypal" and safe.isprintable() and hidden not in safe and "\\" in safe
    assert json.loads(json_text(f"pay{hidden}pal")) == f"pay{hidden}pal"
    assert hidden not in json_text(f"pay{hidden}pal")


def test_joiners_stay_where_they_are_needed() -> None:
    for text in (
        "\U0001f469\u200d\U0001f4bb",
        "\u0645\u06cc\u200c\u062e",
        "\u0915\u094d\u200d\u0937",
    ):
        assert sanitise(text) == text
    assert sanitise("a\u200db\u200cc\u200d") == "a\\u200db\\u200cc\\u200d"


def test_lines() -> None:
    assert sanitise_lines("a\r\nb\rc\n") == ["a", "b\\x0dc"]
    assert sanitise_lines("") == [""]


def test_json_keeps_the_data() -> None:
    for line in CORPUS:
        text = json_text({"m": line})
        assert not hostile.HARMFUL.search(text) and "\n" not in text
        assert json.loads(text)["m"] == line
    assert json_text("日本") == '"日本"'


@pytest.mark.parametrize("colour", [True, False])
def test_rich_shows_text_and_nothing_else(colour: bool) -> None:
    """Without colour not one escape leaves rich; with colour only its own."""
    stream = io.StringIO()
    console = console_for(stream, Terminal(is_tty=False, colour=colour))
    for line in CORPUS[:2000]:
        console.print(plain(line, "bold"), end="\n", soft_wrap=True)
        entry = LogEntry(message=line, service=line, level=line, fields={line: line})
        console.print(log_text(entry), soft_wrap=True)
        update = Update(topic=line, message=line, metadata={line: line})
        console.print(update_text(update), soft_wrap=True)
    shown = stream.getvalue()
    if colour:
        shown, count = re.subn("\x1b\\[[0-9;]*m", "", shown)
        assert count
    assert not hostile.HARMFUL.search(shown)
    assert "[/var/x] ordinary" in shown and "[bold red]markup[/]" in shown and ":smile:" in shown


class _Tty(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_output_on_a_terminal_is_sanitised_whatever_it_is() -> None:
    buffer = io.BytesIO()
    output = Output(_Tty(buffer, encoding="utf-8", write_through=True), io.StringIO())
    for line in CORPUS:
        output.line(line)
    assert not hostile.HARMFUL.search(buffer.getvalue().decode())


def test_output_in_a_pipe_is_left_alone() -> None:
    buffer = io.BytesIO()
    output = Output(io.TextIOWrapper(buffer, encoding="utf-8"), io.StringIO())
    output.line("\x1b[31mred\x1b[0m")
    output.line("lone \ud800 surrogate")
    assert buffer.getvalue() == b"\x1b[31mred\x1b[0m\nlone \\ud800 surrogate\n"


def test_notes_are_sanitised_everywhere() -> None:
    notes = io.StringIO()
    output = Output(io.StringIO(), notes)
    for line in CORPUS[:500]:
        output.note(line)
    assert not hostile.HARMFUL.search(notes.getvalue())
