"""Bytes of any origin -> log lines."""

from __future__ import annotations

import random

import pytest

from streamkit.cli.input.lines import LineSplitter


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


def test_only_what_is_overwritten_is_dropped() -> None:
    assert split(b"hello\r\x1b[0m\nworld\r\x1b[m\n") == ["hello", "world"]
    assert split(b"abcdef\rXY\n") == ["XYcdef"]
    assert split(b"abcdef\rXY\x1b[K\n") == ["XY\x1b[K"]
    assert split(b"abc\r\r\r\n", b"x\r\r") == ["abc", "x"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_a_byte_order_mark_says_the_encoding(encoding: str, step: int) -> None:
    data = "\ufeffERROR eins\r\nzwei \u0a0a 日\r\n\nletzte".encode(encoding)
    chunks = [data[at : at + step] for at in range(0, len(data), step)]
    assert split(*chunks) == ["ERROR eins", "zwei \u0a0a 日", "", "letzte"]


def test_a_hole_at_the_start_is_skipped() -> None:
    """A writer that does not append goes on at its old place after its file was truncated."""
    splitter = LineSplitter()
    assert splitter.feed(bytes(5000)) == []
    assert splitter.feed(bytes(96) + b"line\n") == ["line"]
    assert splitter.ends == [5101]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_reading_may_go_on_at_any_end(encoding: str) -> None:
    """`ends` are places in the stream: from each of them the rest gives the rest of the lines."""
    text = "\ufeffa\n" + "日" * 40 + "\n1%\r2%\r100%\n\r\n" + "long " * 30 + "\nlast"
    data = text.encode(encoding)
    for step in (1, 7, 64):
        splitter, lines, ends = LineSplitter(48), list[str](), list[int]()
        for at in range(0, len(data), step):
            lines += splitter.feed(data[at : at + step])
            ends += splitter.ends
        lines += splitter.finish()
        for index, end in enumerate(ends, 1):
            again = LineSplitter(48, place=end, encoding=encoding)
            assert again.feed(data[end:]) + again.finish() == lines[index:]
