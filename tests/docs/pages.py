"""Pages as a reader works through them: files are written, commands typed, in their order.

A block of a page is one of these:

    <!-- NAME.EXT --> before it      a file of that name
    <!-- not run: WHY --> before it  for the eye; WHY says what runs instead
    sh                               lines for a shell. A server goes on in the background, and what
                                     follows something for ever is stopped after a moment
    console                          what follows `$ ` is typed, and the rest is what it answers;
                                     numbers may differ, and `...` is anything
    python                           run, with `await` allowed; all of a page share their names
    toml                             must be TOML
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Block", "blocks", "play"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_END = '[ -z "$server" ] || { kill -- -$server 2>/dev/null; wait $server; } || true; server='
_CELL = """
import ast, asyncio, inspect, sys
names = {"__name__": "cell"}
for path in sys.argv[1:]:
    code = compile(open(path).read(), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    done = eval(code, names)
    if inspect.iscoroutine(done):
        try:
            asyncio.run(asyncio.wait_for(done, 3 if "# for ever" in open(path).read() else 60))
        except TimeoutError:
            if "# for ever" not in open(path).read():
                raise
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comment before it says."""

    kind: str
    note: str
    text: str

    @property
    def file(self) -> str:
        """The name of the file that it is; "" if it is none."""
        return self.note if re.fullmatch(r"[\w./-]+\.\w+", self.note) else ""

    @property
    def skipped(self) -> str:
        """Why it is not run; "" if it is."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else ""


def blocks(page: Path) -> list[Block]:
    """The blocks of a page."""
    found = _BLOCK.findall(page.read_text())
    return [Block(kind, note, text) for note, kind, text in found]


def play(page: Path, folder: Path, *, prepare: str = "") -> str:
    """Work through a page in an empty folder; AssertionError unless all of it succeeds.

    `prepare` is typed before it. Returns what was printed.
    """
    with socket.socket() as probe, socket.socket() as other:
        for one in (probe, other):
            one.bind(("127.0.0.1", 0))
        port, figures = probe.getsockname()[1], other.getsockname()[1]
    (folder / ".cell.py").write_text(_CELL)
    lines = ["set -eo pipefail", prepare]
    lines += [line for block in blocks(page) for line in _typed(block, folder)]
    for number, block in enumerate(_cells(page)):
        (folder / f".cell{number}.py").write_text(block.text.replace("50051", str(port)))
    if names := [f"{folder}/.cell{number}.py" for number, _ in enumerate(_cells(page))]:
        lines.append(f"python {folder}/.cell.py {' '.join(names)}")
    script = "\n".join(lines).replace("50051", str(port)).replace("9464", str(figures))
    unset = ("STREAMKIT_TOKEN", "STREAMKIT_ACCESS", "STREAMKIT_CONTEXT", "CI", "COLUMNS")
    done = subprocess.run(
        ["bash", "-c", f"server=\ntrap {shlex.quote(_END)} EXIT\n{script}"],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in unset}
        | {key: str(folder / ".home") for key in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        | {key: str(folder / ".home") for key in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
        | {"STREAMKIT_SERVER": f"localhost:{port}", "STREAMKIT_SERVE_PORT": str(port)}
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{page.name}\n{said}"
    assert "Traceback" not in said, said
    _check_answers(page, folder)
    return said


def _cells(page: Path) -> list[Block]:
    shown = [block for block in blocks(page) if block.kind == "python"]
    return [block for block in shown if not block.file and not block.skipped]


def _typed(block: Block, folder: Path) -> Iterator[str]:
    if block.skipped:
        return
    if block.file:
        yield f"mkdir -p {Path(block.file).parent}"
        yield f"cat > {block.file} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK"
    elif block.kind == "sh":
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            yield from _command(line)
    elif block.kind == "console":
        for number, line in enumerate(block.text.splitlines()):
            if line.startswith("$ "):
                typed = list(_command(line.removeprefix("$ ")))
                if not any("&" in one for one in typed[-2:]):
                    name = f".said{abs(hash(block.text))}.{number}"
                    typed[-1] = f"{{ {typed[-1]}; }} > {name} 2>&1 || true; cat {name}"
                yield from typed


def _command(line: str) -> Iterator[str]:
    """A line of a page, in a form that comes to an end."""
    words = shlex.split(line, comments=True)
    if "serve" in words[:5] and "streamkit" in words:
        yield _END
        alone = shlex.quote(re.sub(r"(?: #.*| &)?$", "", line, count=1))
        yield f"setsid bash -c {alone} 2>>.serve.log >&2 & server=$!"
        yield "for try in $(seq 100); do streamkit health >/dev/null 2>&1 && break; sleep 0.1; done"
        yield "streamkit health >/dev/null || { cat .serve.log; exit 1; }"
    elif words and (("-f" in words and words[0] == "streamkit") or words[:2] == ["curl", "-N"]):
        yield f"timeout 1 {line.partition(' #')[0]} || [ $? = 124 ]"
    else:
        yield line


def _check_answers(page: Path, folder: Path) -> None:
    """What a console shows is what was said, but for numbers."""
    for block in blocks(page):
        if block.kind != "console" or block.skipped:
            continue
        shown: dict[int, list[str]] = {}
        number = -1
        for place, line in enumerate(block.text.splitlines()):
            if line.startswith("$ "):
                shown[number := place] = []
            else:
                shown[number].append(line)
        for place, expected in shown.items():
            path = folder / f".said{abs(hash(block.text))}.{place}"
            if not path.exists():
                continue
            said = [_shape(line) for line in path.read_text().splitlines()]
            for line in expected:
                assert line == "..." or _shape(line) in said, f"{page.name}: {line!r}\n{said}"


def _shape(line: str) -> str:
    """A line without what is different each time."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.:,TZ-]*", "0", line)).strip()
