"""Rules of what is kept, written in one line: `topics=metrics.>,age=1d,bytes=200MB,keep_last=1`."""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from typing import TYPE_CHECKING

from streamkit.cli.input.parsing import duration, size
from streamkit.errors import InvalidArgumentError

if TYPE_CHECKING:
    from streamkit.config import RetentionRule

__all__ = ["retention_rule"]

_KEYS = ("topics", "services", "age", "bytes", "keep_last")


def retention_rule(text: str) -> RetentionRule:
    """The rule that a text means. ValueError for what cannot be meant."""
    given: dict[str, str] = {}
    for part in _parts(text):
        key, sign, value = part.partition("=")
        key = key.replace("-", "_")
        if key not in _KEYS:
            close = get_close_matches(key, _KEYS, 1)
            hint = f"; did you mean {close[0]}?" if close else f": {', '.join(_KEYS)}"
            raise ValueError(f"there is no {key[:40]!r} in a rule{hint}")
        if not sign or not value or key in given:
            raise ValueError(f"give {key}=... once")
        given[key] = value
    if ("topics" in given) == ("services" in given):
        raise ValueError("say topics=PATTERN or services=PATTERN")
    keep_last = given.get("keep_last", "0")
    if not (keep_last.isascii() and keep_last.isdigit()):
        raise ValueError("keep_last must be a whole number")
    from streamkit.config import RetentionRule  # here: help would wait for all settings

    try:
        return RetentionRule(
            stream="updates" if "topics" in given else "logs",
            pattern=given.get("topics") or given["services"],
            max_age=duration(given.get("age", "0")),
            max_bytes=size(given.get("bytes", "0")),
            keep_last=int(keep_last),
        )
    except InvalidArgumentError as error:
        raise ValueError(error.message) from None


def _parts(text: str) -> list[str]:
    """What stands between commas or blanks; quotes keep those of a name together."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ", \t\n", True, ""
    try:
        return list(lexer)
    except ValueError:
        raise ValueError("a quote is not closed") from None
