"""Bytes of any origin -> log lines. Pure.

A line ends at a newline. A carriage return goes back to the start of the line, and what comes after
it is written over what was there: of a progress display that redraws its line only the last state
is a line, and text that nothing overwrites stays. A byte order mark says which Unicode it is, UTF-8
otherwise; bytes that are none become replacement characters. A line without an end is cut into
pieces, so that memory stays bounded.
"""

from __future__ import annotations

import re

__all__ = ["MAX_LINE", "LineSplitter", "encoding_of"]

MAX_LINE = 256 * 1024
"""Bytes; a longer line becomes several records."""

_MARKS = (
    # The mark of UTF-32 begins with that of UTF-16.
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)
_LONGEST_MARK = 4
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_ERASE = re.compile(r"\x1b\[[02]?[KJ]")


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a text by its first bytes, and how many of them are the mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


class LineSplitter:
    """Cut a stream of bytes into lines. One stream, one splitter.

    `ends` holds for every line of the last answer where it ended in the stream, and `place` where
    the last of all lines ended. A stream that is read on from the middle gives its `place` and the
    `encoding` that its beginning told.
    """

    def __init__(self, limit: int = MAX_LINE, *, place: int = 0, encoding: str = "") -> None:
        self._limit = limit
        self._rest = b""
        self._hidden = 0
        """Bytes of the rest that were overwritten and are not kept."""
        self._encoding = encoding
        self.place = place
        self.ends: list[int] = []

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes and return the lines that they complete."""
        self.ends = []
        if not self._encoding:
            data = self._begin(data)
        if self.place == 0 and not self._rest and data[:1] == b"\x00" and self._encoding == "utf-8":
            # A hole: its writer went on at its old place after the file was truncated.
            filled = data.lstrip(b"\x00")
            self._hidden += len(data) - len(filled)
            data = filled
        *whole, rest = self._divide(self._rest + data)
        lines: list[str] = []
        for line in whole:
            self._pieces(line, len(self._newline), lines)
        self._rest = self._collapsed(rest)
        while len(self._rest) > self._limit:
            self._rest = self._piece(self._rest, lines)
        return lines

    def finish(self) -> list[str]:
        """Return the last line if it had no end."""
        self.ends = []
        lines: list[str] = []
        if not self._encoding and self._rest:
            rest, self._rest = self._rest, b""
            self._rest = self._begin(rest, whole=True)
        rest, self._rest = self._rest, b""
        if rest:
            self._pieces(rest, 0, lines)
            if not lines[0].strip("\r"):
                self.ends = []
                return []
        return lines

    @property
    def _newline(self) -> bytes:
        return b"\n" if self._encoding in ("utf-8", "") else "\n".encode(self._encoding)

    def _begin(self, data: bytes, *, whole: bool = False) -> bytes:
        """Look for a byte order mark once enough of the stream is there; take it away."""
        data, self._rest = self._rest + data, b""
        if not whole and len(data) < _LONGEST_MARK and any(m.startswith(data) for m, _ in _MARKS):
            self._rest = data
            return b""
        self._encoding, length = encoding_of(data)
        self._hidden += length
        return data[length:]

    def _divide(self, data: bytes) -> list[bytes]:
        newline = self._newline
        if len(newline) == 1:
            return data.split(newline)
        parts, start, at = [], 0, -1
        while (at := data.find(newline, at + 1)) >= 0:
            if at % len(newline):
                continue  # halves of two characters
            parts.append(data[start:at])
            start = at + len(newline)
            at = start - 1
        return [*parts, data[start:]]

    def _collapsed(self, rest: bytes) -> bytes:
        """A display that only ever returns to the start of its line does not grow without end."""
        if rest.count(b"\r") < 2 or self._encoding not in ("utf-8", ""):
            return rest
        *states, last = rest.split(b"\r")
        shown = _overwritten([_decode(state, "utf-8") for state in states]).encode()
        kept = shown + b"\r" + last
        self._hidden += len(rest) - len(kept)
        return kept

    def _pieces(self, line: bytes, newline: int, lines: list[str]) -> None:
        while len(line) > self._limit:
            line = self._piece(line, lines)
        text = _decode(line, self._encoding or "utf-8")
        lines.append(_overwritten(text.split("\r")) if "\r" in text else text)
        self._ended(len(line) + newline)

    def _piece(self, line: bytes, lines: list[str]) -> bytes:
        """Take a piece off a line that is too long; return the rest of it."""
        cut = _boundary(line, self._limit, len(self._newline))
        lines.append(_decode(line[:cut], self._encoding or "utf-8"))
        self._ended(cut)
        return line[cut:]

    def _ended(self, count: int) -> None:
        self.place += count + self._hidden
        self._hidden = 0
        self.ends.append(self.place)


def _overwritten(states: list[str]) -> str:
    """What a line shows after all that was written into it, each state from its start."""
    shown = ""
    for state in states:
        visible = _ESCAPE.sub("", state)
        if not visible:
            shown = "" if _ERASE.search(state) else shown or state
            continue
        before = _ESCAPE.sub("", shown)
        covered = len(visible) >= len(before) or _ERASE.search(state)
        shown = state if covered else state + before[len(visible) :]
    return shown


def _boundary(data: bytes, limit: int, width: int) -> int:
    """The last place up to `limit` that does not divide a character."""
    if width > 1:
        return limit - limit % 4
    cut = limit
    while cut > limit - 3 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _decode(line: bytes, encoding: str) -> str:
    # A NUL is legal in a protobuf string, but some databases end a text at it.
    return line.decode(encoding, "replace").replace("\x00", "\ufffd")
