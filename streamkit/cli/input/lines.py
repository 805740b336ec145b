"""Bytes of any origin -> log lines. Pure.

A line ends at a newline. What a carriage return in it overwrote is not kept: of a progress display
that redraws its line only the last state is a line. Bytes that are not UTF-8 become replacement
characters. A line without an end is cut into pieces, so that memory stays bounded.
"""

from __future__ import annotations

import re

__all__ = ["MAX_LINE", "LineSplitter", "detect_level"]

MAX_LINE = 256 * 1024
"""Bytes; a longer line becomes several records."""

_LEVEL = re.compile(
    r"\b(?:(?P<error>ERROR|FATAL|CRITICAL|PANIC|SEVERE)|(?P<warn>WARN|WARNING)"
    r"|(?P<debug>DEBUG|TRACE)|(?P<info>INFO|NOTICE))\b"
    r"|\blevel=\"?(?P<word>[a-zA-Z]+)"
    r"|^(?:(?P<error2>error)|(?P<warn2>warning))(?:\[\w+\])?:",
)
_WORDS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warn",
    "warning": "warn",
    "err": "error",
    "error": "error",
    "fatal": "error",
    "critical": "error",
    "panic": "error",
}
_LOOK_AT = 160
"""Characters of a line in which a level is looked for; further on it is part of the message."""


class LineSplitter:
    """Cut a stream of bytes into lines. One stream, one splitter."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes and return the lines that they complete."""
        *whole, rest = (self._rest + data).split(b"\n")
        lines = [text for line in whole for text in self._texts(line)]
        # A display that only ever returns to the start of its line does not grow without end.
        if rest.rstrip(b"\r").count(b"\r"):
            head, _, last = rest.rstrip(b"\r").rpartition(b"\r")
            del head
            rest = last + (b"\r" if rest.endswith(b"\r") else b"")
        while len(rest) > self._limit:
            cut = _boundary(rest, self._limit)
            lines.append(_decode(rest[:cut]))
            rest = rest[cut:]
        self._rest = rest
        return lines

    def finish(self) -> list[str]:
        """Return the last line if it had no end."""
        rest, self._rest = self._rest, b""
        return self._texts(rest) if rest.strip(b"\r") else []

    def _texts(self, line: bytes) -> list[str]:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        pieces = []
        while len(shown) > self._limit:
            cut = _boundary(shown, self._limit)
            pieces.append(_decode(shown[:cut]))
            shown = shown[cut:]
        pieces.append(_decode(shown))
        return pieces


def _boundary(data: bytes, limit: int) -> int:
    """The last place up to `limit` that does not divide a UTF-8 character."""
    cut = limit
    while cut > limit - 3 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _decode(line: bytes) -> str:
    # A NUL is legal in a protobuf string, but some databases end a text at it.
    return line.decode("utf-8", "replace").replace("\x00", "\ufffd")


def detect_level(line: str, default: str = "info") -> str:
    """The level that a line names near its start, as loggers and compilers write it."""
    match = _LEVEL.search(line[:_LOOK_AT])
    if match is None:
        return default
    if match["word"] is not None:
        return _WORDS.get(match["word"].lower(), default)
    return str(match.lastgroup).rstrip("2")
