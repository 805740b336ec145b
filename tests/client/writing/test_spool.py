"""What waits on disk: first in, first out, bounded, and readable after a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamkit.client.writing.spool import (
    Spool,
    kept_files,
    read_requests,
    request_of,
    spool_folder,
)
from streamkit.generated.streamservice import LogEntry, WriteRequest


def request(number: int, size: int = 10) -> WriteRequest:
    return request_of("p", number, [LogEntry(message="x" * size, service="s")])


def test_first_in_first_out_and_the_room_comes_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a" / "spool", 1000)
    for turn in range(20):
        assert spool.put(request(turn)) and spool.put(request(turn + 100))
        for number in (turn, turn + 100):
            first = spool.first()
            assert first is not None and first.producer.sequence == number
            spool.take()
        assert spool.first() is None and spool.lines == 0
    spool.close()
    assert not spool.path.exists()


def test_no_more_than_the_limit_and_nothing_at_all(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    assert spool.put(request(1, 900)) and not spool.put(request(2, 200))
    assert spool.path.stat().st_size <= 1000
    spool.close()
    assert not Spool(tmp_path / "none", 0).put(request(1))
    assert not Spool(Path("/dev/null/spool"), 1000).put(request(1))


def test_what_is_kept_is_found_unless_its_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spool = Spool(spool_folder("a:1") / "one", 10_000)
    assert spool.put(request(2)) and list(kept_files("a:1")) == []
    assert spool.keep([request(1)], [request(3)])
    assert list(kept_files("b:1")) == []
    with spool.path.open("ab") as file:
        file.write(b"\xff\0\0\0cut off")
    for path, number in kept_files("a:1"):
        assert path == spool.path
        assert [r.producer.sequence for r in read_requests(number)] == [1, 2, 3]
    assert os.stat(spool.path).st_mode & 0o077 == 0
    assert os.stat(spool.path.parent).st_mode & 0o777 == 0o700


def test_what_cannot_be_left_behind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    assert spool.put(request(1))
    monkeypatch.setattr(Spool, "_write", lambda self, place, data: False)
    assert not spool.keep([], [request(2)])
    assert not Spool(tmp_path / "none", 0).keep([], [request(2)])
    spool.close()
