"""Pictures are drawn by the program, and say what it says now."""

from __future__ import annotations

import re
import sys

from scripts.filming import PICTURES, animated, film, words_of
from tests.docs.pages import ROOT

DEMO = ROOT / "streamkit" / "cli" / "commands" / "demo.py"


def test_the_demo_in_the_picture_is_the_demo_of_now() -> None:
    path = PICTURES / "demo.svg"
    shown = " ".join(words_of(path.read_text()))
    for title in re.findall(r"world\.command\(f?['\"]([\w -]+)", DEMO.read_text()):
        assert f"streamkit {title}".strip() in shown, f"{title}: run `make pictures`"
    assert path.stat().st_size < 300_000
    assert "<script" not in path.read_text()


def test_a_terminal_becomes_frames() -> None:
    code = "import time; print('\\x1b[1;32mgreen\\x1b[0m <plain>', flush=True); time.sleep(60)"
    frames = film([sys.executable, "-c", code], 1.0, first=0.3, every=0.3)
    drawn = animated(frames, 1.0, "a & b")
    assert len(frames) > 1
    assert list(words_of(drawn)) == ["green", "<plain>"], "the same line is drawn once"
    assert 'class="b"' in drawn and "<title>a &amp; b</title>" in drawn


def test_frames_are_drawn_without_gaps() -> None:
    box = "\u256d\u2500 a \u2500\u256e\r\n\u2502 b \u2502"
    code = f"import time; print({box!r}, flush=True); time.sleep(60)"
    drawn = animated(film([sys.executable, "-c", code], 1.0, first=0.5, every=0.3), 1.0, "box")
    assert list(words_of(drawn)) == ["a", "b"]
    (line,) = {float(found) for found in re.findall(r"v(\d+)", drawn)}
    rows = sorted({int(found) for found in re.findall(r'y="(\d+)"', drawn)})
    assert line == rows[1] - rows[0], "one ends where the next begins"


def test_every_picture_that_a_page_shows_is_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
