"""Bytes of any origin -> log lines."""

from __future__ import annotations

import random

import pytest

from streamkit.cli.input.lines import LineSplitter, detect_level


def split(*chunks: bytes, limit: int = 1000) -> list[str]:
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.finish()


def test_lines_across_chunks() -> None:
    assert split(b"on", b"e\ntw", b"o\n\nthree") == ["one", "two", "", "three"]
    assert split(b"dos\r\nunix\n") == ["dos", "unix"]
    assert split() == split(b"") == []


def test_only_the_last_state_of_a_progress_line_is_kept() -> None:
    assert split(b"10%\r50%\r100%\ndone\n") == ["100%", "done"]
    assert split(b"10%\r", b"50%\r", b"100%\r", b"\ndone") == ["100%", "done"]
    assert split(b"10%\r50%\r") == ["50%"]


def test_a_progress_line_without_end_does_not_grow() -> None:
    splitter = LineSplitter(1000)
    for number in range(100_000):
        assert splitter.feed(b"\r%7d of 100000" % number) == []
    assert splitter.finish() == ["  99999 of 100000"]


def test_bad_utf8_is_replaced() -> None:
    assert split(b"caf\xe9 \xff\xfe\n") == ["caf� ��"]
    assert split(b"nul\x00\n") == ["nul�"]
    assert split("日".encode()[:2], "日".encode()[2:] + b"\n") == ["日"]


def test_a_line_without_end_is_cut_between_characters() -> None:
    text = "日本語🎉" * 500
    lines = split(text.encode(), b"\n", limit=1000)
    assert len(lines) > 1 and "".join(lines) == text
    assert all(len(line.encode()) <= 1000 for line in lines)
    one_chunk = split(text.encode() + b"\n", limit=1000)
    assert "".join(one_chunk) == text


def test_any_chunking_gives_the_same_lines() -> None:
    chance = random.Random(3)
    data = bytes(chance.choices(b"ab\n\xe6\x97\xa5", k=5000))
    whole = split(data, limit=10_000)
    for _ in range(20):
        cuts = sorted(chance.sample(range(len(data)), 50))
        chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert split(*chunks, limit=10_000) == whole


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-01-01 12:00:00 ERROR cannot open", "error"),
        ("[WARNING] careful", "warn"),
        ("DEBUG:root:x", "debug"),
        ('time=1 level=warn msg="x"', "warn"),
        ('level="fatal" msg=x', "error"),
        ("error[E0308]: mismatched types", "error"),
        ("warning: unused variable", "warn"),
        ("CRITICAL it burns", "error"),
        ("INFO all good", "info"),
        ("no errors found", "info"),
        ("the word Error in a sentence", "info"),
        ("", "info"),
        ("x" * 200 + " ERROR too far", "info"),
        ("level=strange", "info"),
    ],
)
def test_detect_level(line: str, level: str) -> None:
    assert detect_level(line) == level
