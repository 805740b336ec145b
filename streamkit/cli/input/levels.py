"""The level that a log line names, whoever wrote it. Pure."""

from __future__ import annotations

import re

__all__ = ["detect_level"]

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


def detect_level(line: str, default: str = "info") -> str:
    """The level that a line names near its start, as loggers and compilers write it."""
    match = _LEVEL.search(line[:_LOOK_AT])
    if match is None:
        return default
    if match["word"] is not None:
        return _WORDS.get(match["word"].lower(), default)
    return str(match.lastgroup).rstrip("2")
