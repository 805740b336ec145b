"""The level that a log line names, whoever wrote it. Pure, and linear in the line.

Loggers put the level near the start of a line: as a word in capitals, in brackets, as a field of
JSON or logfmt, as a letter (klog, glog, Android, tracing of containers), as the number that syslog
puts before a line, or before a colon as compilers do. A word in the middle of a sentence is no
level.
"""

from __future__ import annotations

import re

__all__ = ["detect_level"]

_LOOK_AT = 200
"""Characters of a line in which a level is looked for; further on it is part of the message."""
_NAMES = {
    "debug": ("trace", "verbose", "debug", "dbg", "trc", "fine", "finer", "finest", "debug1"),
    "info": ("info", "information", "informational", "notice", "note", "inf", "log", "config"),
    "warn": ("warn", "warning", "wrn", "caution"),
    "error": (
        *("error", "err", "fatal", "critical", "crit", "panic", "severe", "alert", "emerg"),
        *("emergency", "failure", "fail", "ftl", "eror", "dpanic"),
    ),
}
_WORDS = {name: level for level, names in _NAMES.items() for name in names}
_LETTERS = (
    dict.fromkeys("TVD", "debug") | dict.fromkeys("IN", "info") | {"W": "warn"}
    | dict.fromkeys("EFCAS", "error")
)  # fmt: skip
_NUMBERS = {10: "debug", 20: "info", 30: "info", 40: "warn", 50: "error", 60: "error"}
"""Of bunyan and pino: 20 is debug there, 10 trace."""
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_PLAIN = ("note", "config", "fine", "fail", "failure", "alert", "caution", "log", "verbose")
"""Words that stand in capitals for other reasons, too."""
_CAPITALS = "|".join(
    name.upper() for name in sorted(_WORDS, key=len, reverse=True) if name not in _PLAIN
)

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
_JSON = re.compile(
    r'"(?:level|lvl|severity|levelname|log\.level|@l|loglevel|log_level|s)"\s*:\s*'
    rf'(?:"(?P<word>{_WORD}|[TVDINWEF])\d?"|(?P<number>\d\d)\b)',
    re.IGNORECASE,
)
_LOGFMT = re.compile(
    rf'(?:^|[\s\[{{(,])(?:level|lvl|severity|loglevel)[=:]\s?"?(?P<word>{_WORD})\b', re.IGNORECASE
)
_SYSLOG = re.compile(r"^<(?P<number>\d{1,3})>")
_KLOG = re.compile(r"^(?P<letter>[IWEFD])\d{4}(?:\d{4})? \d\d:\d\d:\d\d")
_ANDROID = re.compile(
    r"^(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d+\s+(?:\S+\s+)?\d+\s+\d+ (?P<letter>[VDIWEFAS])\s"
    r"|^(?P<short>[VDIWEF])/[\w.$-]+\s*(?:\(\s*\d+\))?:"
    r"|^\d\d-\d\d \d\d:\d\d:\d\d\.\d+ (?P<brief>[VDIWEF])/"
)
_BRACKETS = re.compile(
    rf"[\[<(]\s*(?:[\w.-]{{1,20}}[:.]|[A-Z]{{1,8}}-)?(?P<word>{_WORD})\s*[\])>]"
    rf"|[\[|]\s*(?P<letter>[TVDIWEF])\s*[\]|]"
    rf"|\|\s*(?P<piped>{_WORD})\s*\|",
    re.IGNORECASE,
)
_CAPITAL = re.compile(rf"(?<![\w/$.-])(?P<word>{_CAPITALS})(?![\w/-]|\.\w|=)")
_COLON = re.compile(
    # At the start, or after a place in a file or the name of a program, as compilers do.
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, (?P<dated>error|warning|info)\s"
    r"|^\s*(?:[^\s:]+(?::\d+)+:?\s+|[^\s:]+\(\d+(?:,\d+)?\)\s?:\s+|[\w./+-]{1,40}:\s+)?"
    r"(?:fatal\s+|internal compiler\s+|syntax\s+)?(?P<word>error|warning|note|info|debug|fatal|err)"
    r"(?:\[\w+\]|\s\w{1,8}\d+)?\s?:",
    re.IGNORECASE,
)
_PYTHON = re.compile(
    r"^(?:Traceback \(most recent call last\)|panic:|thread '[^']*' panicked at"
    r"|Exception in thread |(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception)(?::|$)|Caused by: )"
)


def detect_level(line: str, default: str = "info") -> str:
    """The level that a line names near its start, as loggers and compilers write it."""
    head = line[: _LOOK_AT * 2]
    if "\x1b" in head:
        head = _ESCAPE.sub("", head)
    head = head[:_LOOK_AT]
    if head.lstrip()[:1] == "{" and '":' in head:
        return _of_json(line, default)
    if match := _SYSLOG.match(head):
        return ("error", "error", "error", "error", "warn", "info", "info", "debug")[
            int(match["number"]) % 8
        ]
    if match := _KLOG.match(head) or _ANDROID.match(head):
        return _LETTERS[str(match[match.lastgroup or 0])]
    found = [m for m in (_LOGFMT.search(head), _BRACKETS.search(head), _CAPITAL.search(head)) if m]
    if found:
        first = min(found, key=lambda match: match.start())
        name = str(first[first.lastgroup or 0])
        return _LETTERS[name.upper()] if first.lastgroup == "letter" else _WORDS[name.lower()]
    if match := _COLON.match(head):
        return _WORDS[(match["word"] or match["dated"]).lower()]
    return "error" if _PYTHON.match(head) else default


def _of_json(line: str, default: str) -> str:
    match = _JSON.search(line[:4096])
    if match is None:
        return default
    if match["number"] is not None:
        number = int(match["number"])
        return "debug" if number <= 20 else _NUMBERS.get(number - number % 10, default)
    word = match["word"]
    return _LETTERS[word.upper()] if len(word) == 1 else _WORDS[word.lower()]
