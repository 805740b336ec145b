"""Draw the demo for docs/pictures from the demo itself: `python scripts/filming.py [--seconds N]`.

`demo.svg` is what `streamkit demo` shows on a terminal, animated: a pty, read by a terminal
emulator that is looked at again and again. Text stays text, so a picture can be searched.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pyte

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, ROWS = 100, 30
SECONDS = 9.0
SKIPPED = 2.0
"""Seconds at the beginning in which nothing is there to see yet."""
EVERY = 0.75
"""Seconds between two frames."""
CELL, LINE = 8.4, 17
BACKGROUND, FOREGROUND = "#16181d", "#d8dee9"
COLOURS = {
    "black": "#3b4252", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b",
    "yellow": "#e5c07b", "blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2",
    "white": "#d8dee9", "default": FOREGROUND,
}  # fmt: skip
MIDDLE, TOP = -4.5, -13.0
"""Of a line, from where its letters stand."""
FRAMES = {
    "─": "",
    "│": f"M{{m:g}} {TOP}v{LINE}",
    "╭": f"M{{m:g}} {TOP + LINE}V0Q{{m:g}} {MIDDLE} {{r:g}} {MIDDLE}",
    "╮": f"M{{m:g}} {TOP + LINE}V0Q{{m:g}} {MIDDLE} {{x:g}} {MIDDLE}",
    "╰": f"M{{m:g}} {TOP}V-9Q{{m:g}} {MIDDLE} {{r:g}} {MIDDLE}",
    "╯": f"M{{m:g}} {TOP}V-9Q{{m:g}} {MIDDLE} {{x:g}} {MIDDLE}",
}
"""Drawn, since the letters of a font leave gaps between lines."""


@dataclass(frozen=True)
class Run:
    """Characters of one line that look the same."""

    column: int
    text: str
    colour: str
    bold: bool


Screen = tuple[tuple[Run, ...], ...]


def main() -> int:
    seconds = (
        float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else SECONDS
    )
    PICTURES.mkdir(exist_ok=True)
    frames = film([sys.executable, "-m", "streamkit", "demo", "--seconds", f"{seconds:g}"], seconds)
    drawn = animated(frames, EVERY, "streamkit demo: updates, jobs, logs and a query, live")
    (PICTURES / "demo.svg").write_text(drawn)
    print(f"docs/pictures/demo.svg: {len(frames)} frames, {len(drawn) // 1024} KB")
    return 0


def film(
    command: list[str], seconds: float, *, first: float = SKIPPED, every: float = EVERY
) -> list[Screen]:
    """Run a command on a terminal for so long and look at its screen again and again."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    plain = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env=plain | {"TERM": "xterm-256color", "COLORTERM": ""},
    )  # fmt: skip
    os.close(slave)
    began, frames, next_look = time.monotonic(), list[Screen](), first
    try:
        while (now := time.monotonic() - began) < seconds:
            if select.select([master], [], [], 0.05)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:  # the terminal's other end is closed
                    break
                if not data:
                    break
                stream.feed(data)
            if now >= next_look:
                next_look += every
                frames.append(tuple(runs(screen, row) for row in range(ROWS)))
    finally:
        process.terminate()
        process.wait()
        os.close(master)
    return frames


def runs(screen: Any, row: int) -> tuple[Run, ...]:
    """One line of a screen."""
    line = screen.buffer[row]
    found: list[Run] = []
    for column in range(screen.columns):
        cell = line[column]
        if cell.data in ("", " "):
            continue
        colour = COLOURS.get(cell.fg.removeprefix("bright"), f"#{cell.fg}")
        look = (colour, bool(cell.bold))
        last = found[-1] if found else None
        gap = column - (last.column + len(last.text)) if last is not None else 9
        alike = last is not None and (cell.data in FRAMES) == (last.text[-1] in FRAMES)
        if last is not None and alike and gap <= 1 and (last.colour, last.bold) == look:
            text = last.text + " " * gap + cell.data
            found[-1] = Run(last.column, text, *look)
        else:
            found.append(Run(column, cell.data, *look))
    return tuple(found)


def animated(frames: list[Screen], every: float, title: str) -> str:
    """An SVG that shows the frames one after the other, without a script."""
    lines: dict[tuple[Run, ...], str] = {}
    parts: list[str] = []
    for number, frame in enumerate(frames):
        uses = []
        for row, line in enumerate(frame):
            if line:
                name = lines.setdefault(line, f"l{len(lines)}")
                uses.append(f'<use href="#{name}" y="{(row + 1) * LINE}"/>')
        parts.append(
            f'<g class="f" style="animation-delay:{number * every:g}s">{"".join(uses)}</g>'
        )
    defined = "".join(
        f'<g id="{name}">{"".join(map(_text, line))}</g>' for line, name in lines.items()
    )
    width, height = round(COLUMNS * CELL + 24), (ROWS + 1) * LINE + 16
    total, share = len(frames) * every, 100 / max(1, len(frames))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title><style>"
        f"text{{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "white-space:pre}.b{font-weight:bold}"
        f".f{{visibility:hidden;animation:f {total:g}s infinite step-end}}"
        f"@keyframes f{{0%{{visibility:visible}}{share:.3f}%{{visibility:hidden}}}}"
        "@media (prefers-reduced-motion){.f{animation:none}.f:last-child{visibility:visible}}"
        f'</style><rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
        f'<defs>{defined}</defs><g transform="translate(12 4)">{"".join(parts)}</g></svg>\n'
    )


def _text(run: Run) -> str:
    if run.text[0] in FRAMES:
        return f'<path d="{_frame(run)}" stroke="{run.colour}" fill="none"/>'
    bold = ' class="b"' if run.bold else ""
    length = len(run.text) * CELL
    return (
        f'<text x="{run.column * CELL:g}" fill="{run.colour}"{bold} textLength="{length:g}"'
        f' xml:space="preserve">{escape(run.text)}</text>'
    )


def _frame(run: Run) -> str:
    """A piece of a frame; what goes on in its direction is one line."""
    drawn = ""
    at = run.column
    for character, same in itertools.groupby(run.text):
        count = len(list(same))
        x = at * CELL
        at += count
        if character == "─":
            drawn += f"M{x:g} {MIDDLE}h{count * CELL:g}"
        elif character in FRAMES:
            drawn += FRAMES[character].format(x=x, m=x + CELL / 2, r=x + CELL)
    return drawn


def words_of(svg: str) -> Iterator[str]:
    """The texts of a picture."""
    import xml.etree.ElementTree as Tree

    for text in Tree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        yield text.text or ""


if __name__ == "__main__":
    raise SystemExit(main())
