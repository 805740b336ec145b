"""A file that grows and is rotated: nothing lost, nothing twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streamkit.cli.input.following import Rotated, follow
from streamkit.cli.input.lines import LineSplitter


class Script:
    """Drives a follower without threads: every quiet moment runs the next step."""

    def __init__(self, path: Path, *steps: Callable[[], object], from_end: bool = False) -> None:
        self._path = path
        self._steps = list(steps)
        self._from_end = from_end

    def lines(self) -> list[str]:
        splitter, lines = LineSplitter(1 << 20), []
        done = False

        def wait(_: float) -> None:
            nonlocal done
            if self._steps:
                self._steps.pop(0)()
            else:
                done = True

        for data in follow(self._path, from_end=self._from_end, stopped=lambda: done, wait=wait):
            lines += splitter.finish() if isinstance(data, Rotated) else splitter.feed(data)
        return lines + splitter.finish()


def write(path: Path, data: str, mode: str = "a") -> Callable[[], object]:
    def step() -> None:
        with path.open(mode) as file:
            file.write(data)

    return step


def test_grows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1\n2\n")
    assert Script(log, write(log, "3\n"), write(log, "4"), write(log, "5\n")).lines() == [
        "1",
        "2",
        "3",
        "45",
    ]


def test_from_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    assert Script(log, write(log, "new\n"), from_end=True).lines() == ["new"]


def test_renamed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1\n")

    def rotate() -> None:
        log.rename(tmp_path / "log.1")
        write(tmp_path / "log.1", "2\nlast words")()
        write(log, "3\n")()

    assert Script(log, rotate, write(log, "4\n")).lines() == ["1", "2", "last words", "3", "4"]


def test_away_for_a_while(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1\n")
    gone = [lambda: log.unlink(), lambda: None, write(log, "2\n")]
    assert Script(log, *gone).lines() == ["1", "2"]


def test_truncated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1\n2\n3\n")
    assert Script(log, write(log, "4\n", "w"), write(log, "5\n")).lines() == list("12345")


def test_copied_and_truncated_and_longer_than_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old 1\n")
    longer = "new 1\nnew 2\nnew 3\n"
    assert Script(log, write(log, longer, "w")).lines() == ["old 1", "new 1", "new 2", "new 3"]


def test_missing_at_first(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(follow(tmp_path / "nothing"))


@pytest.mark.parametrize("how", ["rename", "truncate"])
def test_a_thousand_rotations(tmp_path: Path, how: str) -> None:
    """Rotation whenever the follower has caught up; every line comes once and in order."""
    log = tmp_path / "log"
    log.write_text("")
    rounds, each = 1000, 20
    steps: list[Callable[[], object]] = []
    for number in range(rounds):
        text = "".join(f"{number} {line} {'x' * 300}\n" for line in range(each))

        def rotate(text: str = text) -> None:
            if how == "rename":
                os.replace(log, tmp_path / "log.1")
                log.write_text(text)
            else:
                write(log, text, "w")()

        steps.append(rotate)
    lines = Script(log, *steps).lines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        f"{number} {line}" for number in range(rounds) for line in range(each)
    ]
