"""A file that grows and is rotated in every way: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamkit.cli.input import following
from streamkit.cli.input.following import Follower, Note
from streamkit.cli.input.generation import Batch, Place
from streamkit.cli.input.rotations import candidates

_followers: list[Follower] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _followers:
        _followers.pop().close()


class Reader:
    """A follower with a clock of its own, and a memory like that of the command."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self.now = 0.0
        self.lines: list[str] = []
        self.told: list[str] = []
        self.batches: list[Batch] = []
        self._places: dict[str, Place] = {}
        self._trails: dict[str, list[Place]] = {}
        self.follower = self._begin(from_end=from_end)

    def _begin(self, *, from_end: bool = False) -> Follower:
        follower = Follower(
            self.path,
            places=self._places,
            trails=self._trails,
            from_end=from_end,
            tell=self.told.append,
            clock=lambda: self.now,
        )
        _followers.append(follower)
        return follower

    def _keep(self, note: Note) -> None:
        self._places[note.key] = note.place
        if note.live:
            self._trails[note.key] = [note.place]
        else:
            self._trails.pop(note.key, None)

    def read(self, most: int = 1_000_000) -> list[str]:
        """What comes until nothing is new, or `most` batches."""
        self.now += 0.1
        before = len(self.lines)
        self.follower.look()
        while most and (batch := self.follower.read()):
            if isinstance(batch, Note):
                self._keep(batch)
                continue
            most -= 1
            self.batches.append(batch)
            self.lines += batch.lines
            self._places[batch.key] = batch.place
            self._trails.setdefault(batch.key, []).append(batch.place)
        return self.lines[before:]

    def later(self, seconds: float = 5.0) -> list[str]:
        self.now += seconds
        return self.read()

    def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Stop in this moment and begin anew with what was kept; some was read and was not."""
        for _ in range(2):
            self.follower.read()
        self.follower.close()
        meanwhile()
        self.follower = self._begin()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text("1\n2\n")
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def rename_on(path: Path) -> None:
    for number in range(60, 0, -1):
        old = path.with_name(f"{path.name}.{number}")
        if old.exists():
            old.rename(path.with_name(f"{path.name}.{number + 1}"))


def rotate(path: Path, *, copy: bool = False) -> None:
    rename_on(path)
    if copy:
        shutil.copyfile(path, f"{path}.1")
        os.truncate(path, 0)
    else:
        path.rename(f"{path}.1")


def test_grows(log: Path) -> None:
    reader = Reader(log)
    assert reader.read() == ["1", "2"]
    append(log, "3\n4")
    assert reader.read() == ["3"]
    append(log, "5\n")
    assert reader.read() == ["45"] and reader.later() == []


def test_from_end_and_what_was_rotated_before(log: Path) -> None:
    append(Path(f"{log}.1"), "long ago\n")
    assert Reader(log).read() == ["1", "2"]
    reader = Reader(log, from_end=True)
    append(log, "new\n")
    assert reader.read() == ["new"]


def test_missing_at_first(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Follower(tmp_path / "nothing")


def test_renamed_and_its_writer_reopens_late(log: Path) -> None:
    reader = Reader(log)
    assert reader.read() == ["1", "2"]
    rotate(log)
    append(log, "")
    append(Path(f"{log}.1"), "3\n")
    assert reader.read() == ["3"]
    append(log, "5\n")
    append(Path(f"{log}.1"), "4\n")
    assert reader.read() == ["4", "5"]
    append(Path(f"{log}.1"), "late\n")
    assert reader.later(1) == ["late"]
    reader.later(following.LINGER + 1)
    append(Path(f"{log}.1"), "very late\n")
    assert reader.later() == ["very late"], "found again by its name"


def test_a_line_that_is_being_written_when_its_file_is_rotated(log: Path) -> None:
    reader = Reader(log)
    append(log, "hal")
    reader.read()
    rotate(log)
    append(log, "next\n")
    assert reader.read() == []
    append(Path(f"{log}.1"), "f\nlast wor")
    assert reader.read() == ["half"]
    assert reader.later() == ["last wor", "next"], "it is waited for, but not for ever"


def test_several_rotations_at_once(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    for text in ("3\n", "4\n", "5\n"):
        append(log, text)
        rotate(log)
    append(log, "6\n")
    assert reader.read() == list("3456") and not reader.told


def test_files_that_are_removed_are_open_before(log: Path) -> None:
    """While nobody takes lines the name is looked at all the same."""
    reader = Reader(log)
    reader.read()
    for text in ("3\n", "4\n", "5\n"):
        append(log, text)
        rotate(log)
        reader.now += 0.1
        reader.follower.look()
    for name, _ in candidates(log):
        os.unlink(name)
    append(log, "6\n")
    assert reader.read() == list("3456") and not reader.told


def test_away_for_a_while(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    log.unlink()
    assert reader.read() == []
    append(log, "3\n")
    assert reader.read() == ["3"]


def test_copied_and_truncated_before_all_was_read(log: Path) -> None:
    reader = Reader(log)
    append(log, "hal")
    reader.read()
    append(log, "f\n3\n")
    rotate(log, copy=True)
    append(log, "4\n")
    assert reader.read() == ["half", "3", "4"] and not reader.told


def test_the_copy_is_there_before_the_file_is_truncated(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "3\n")
    shutil.copyfile(log, f"{log}.1")
    assert reader.read() == ["3"] and reader.later() == []
    append(log, "4\n")  # after the copy: what copying and truncating loses, but we have read it
    assert reader.read() == ["4"]
    os.truncate(log, 0)
    append(log, "5\n")
    assert reader.read() == ["5"] and reader.later() == []


def test_a_copy_of_what_nobody_has_read_yet_is_read(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    os.truncate(log, 0)
    assert reader.read() == []  # from here on it is another file, of which nothing was read
    append(log, "3\n")
    shutil.copyfile(log, f"{log}.1")
    reader.now += 1
    reader.follower.look()
    os.truncate(log, 0)
    append(log, "4\n")
    assert sorted(reader.read() + reader.later()) == ["3", "4"]


class Moving:
    """In place of os.scandir: what it lists is renamed before anybody can look at it."""

    def __init__(self, log: Path, times: int) -> None:
        self._log = log
        self._left = times
        self._scan = os.scandir
        self._entries: list[os.DirEntry[str]] = []

    def __call__(self, folder: Path) -> Moving:
        with self._scan(folder) as entries:
            self._entries = list(entries)
        if self._left:
            self._left -= 1
            rename_on(self._log)
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self._entries)


def test_a_copy_that_is_renamed_while_it_is_looked_for(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "3\n")
    rotate(log, copy=True)
    append(log, "4\n")
    monkeypatch.setattr(os, "scandir", Moving(log, 3))
    assert reader.read() == ["3", "4"] and reader.later() == [] and not reader.told


def test_a_file_that_is_renamed_while_a_new_run_looks_for_it(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(log)
    reader.read()

    def meanwhile() -> None:
        append(log, "3\n")
        rotate(log)
        append(log, "4\n")
        monkeypatch.setattr(os, "scandir", Moving(log, 3))

    reader.restart(meanwhile)
    assert reader.read() == ["3", "4"] and reader.later() == [] and not reader.told


def test_truncated_without_a_copy_is_told(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    os.truncate(log, 0)
    append(log, "3\n")
    assert reader.read() == ["3"]
    assert len(reader.told) == 1 and "app.log was cut" in reader.told[0]


@pytest.mark.parametrize("length", [300, 5000])
def test_filled_again_beyond_the_place_with_the_same_beginning(log: Path, length: int) -> None:
    banner = "# " + "x" * length + "\n"
    log.write_text(banner + "".join(f"a{n}\n" for n in range(10)))
    reader = Reader(log)
    reader.read()
    log.write_text(banner + "".join(f"b{n}\n" for n in range(30)))
    assert reader.read() == [banner.strip()] + [f"b{n}" for n in range(30)]


def test_a_link_that_points_elsewhere(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for number in (1, 2, 3):
        append(tmp_path / f"app.{number}.log", f"{number}\n")
    append(tmp_path / "other.4.log", "no\n")
    link.symlink_to("app.1.log")
    reader = Reader(link)
    assert reader.read() == ["1"]
    for number in (4, 5):
        append(tmp_path / f"app.{number}.log", f"{number}\n")
        link.unlink()
        link.symlink_to(f"app.{number}.log")
    append(tmp_path / "app.1.log", "late\n")
    assert sorted(reader.read()) == ["4", "5", "late"]


def test_other_logs_in_the_folder_are_not_ours(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    names = ("app-error.log", "app.log.gz", "app.log.1.gz", "app2.log", "app.log.swp", "xapp.log")
    for name in names:
        append(log.with_name(name), "no\n")
    for name in ("app.log.1", "app.log-20260131", "app-2026-01-31.log", "app.2.log", "app.log.old"):
        append(log.with_name(name), f"{name}\n")
    assert sorted(reader.later()) == [
        "app-2026-01-31.log", "app.2.log", "app.log-20260131", "app.log.1", "app.log.old"
    ]  # fmt: skip


# ---- after a restart of our own ----


def test_goes_on_where_it_stopped(log: Path) -> None:
    reader = Reader(log)
    append(log, "hal")
    reader.read()
    reader.restart(lambda: append(log, "f\n3\n"))
    assert reader.read() == ["half", "3"]


@pytest.mark.parametrize("copy", [False, True])
def test_rotated_while_nobody_looked(log: Path, copy: bool) -> None:
    reader = Reader(log)
    reader.read()

    def meanwhile() -> None:
        for text in ("3\n", "4\n", "5\n"):
            append(log, text)
            rotate(log, copy=copy)
        append(log, "6 and more than there was before, so that it is no shorter\n")

    reader.restart(meanwhile)
    assert [line[0] for line in reader.read()] == list("3456") and not reader.told


def test_removed_while_nobody_looked_is_told(log: Path) -> None:
    reader = Reader(log)
    reader.read()

    def meanwhile() -> None:
        append(log, "lost\n")
        keep = log.open()  # so that the inode is not used again
        log.unlink()
        append(log, "3\n")
        keep.close()

    reader.restart(meanwhile)
    assert reader.read() == ["3"]
    assert len(reader.told) == 1 and "app.log was cut or removed" in reader.told[0]


def test_read_and_rotated_and_removed_is_nothing_to_tell(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    rotate(log)
    append(log, "3\n")
    reader.read()
    reader.later(following.LINGER + 1)
    reader.restart(Path(f"{log}.1").unlink)
    assert reader.later() == [] and not reader.told


def test_a_file_that_was_read_before_a_restart_is_done_with_later(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    rotate(log)
    append(log, "3\n")
    reader.read()
    reader.restart()
    reader.later(following.LINGER + 1)
    reader.restart(Path(f"{log}.1").unlink)
    assert reader.later() == [] and not reader.told


def test_lines_are_read_again_between_places(log: Path) -> None:
    append(log, "".join(f"{n}\n" for n in range(3, 2000)) + "no end")
    reader = Reader(log)
    reader.read()
    reader.read()
    rotate(log)
    append(log, "x\n")
    reader.later()
    assert len(reader.batches) > 4
    for batch in reader.batches:
        assert reader.follower.reread(batch.first, batch.place) == batch.lines
    for name, _ in candidates(log):
        os.unlink(name)
    assert reader.follower.reread(reader.batches[0].first, reader.batches[0].place) is None


@pytest.mark.parametrize("seed", range(20))
def test_rotated_at_random(tmp_path: Path, seed: int) -> None:
    """Any order of writing, half lines, late writers, rotations of every kind and restarts."""
    chance = random.Random(seed)
    log = tmp_path / "app.log"
    log.write_text("")
    written: list[str] = []
    writer = log.open("a")
    reader = Reader(log)
    half = ""
    for _ in range(400):
        match chance.choices(
            ("write", "half", "read", "rename", "copy", "reopen", "restart", "rest"),
            (10, 3, 8, 1, 1, 3, 1, 1),
        )[0]:
            case "write":
                for _ in range(chance.randrange(1, 40)):
                    line = f"{len(written):06d} {'x' * chance.randrange(200)}"
                    writer.write(half + line + "\n")
                    written.append(half + line)
                    half = ""
                writer.flush()
            case "half" if not half and os.fstat(writer.fileno()).st_ino == log.stat().st_ino:
                half = f"half {len(written)} "
                writer.write(half)
                writer.flush()
                writer.write("")
                text, half = half, ""
                writer.write(f"{len(written):06d}\n")
                written.append(f"{text}{len(written):06d}")
                reader.read(chance.randrange(3))
                writer.flush()
            case "read":
                reader.read(chance.randrange(1, 5))
            case "rename" if os.fstat(writer.fileno()).st_ino == log.stat().st_ino:
                rotate(log)
                append(log, "")
            case "copy" if os.fstat(writer.fileno()).st_ino == log.stat().st_ino:
                rotate(log, copy=True)
            case "reopen":
                writer.close()
                writer = log.open("a")
            case "restart":
                reader.restart()
            case "rest":
                reader.later(chance.choice((1, 3, 70)))
            case _:
                pass
    writer.close()
    for _ in range(10):
        reader.later()
    assert not reader.told
    assert sorted(reader.lines) == sorted(written)
