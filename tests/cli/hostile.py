"""Lines that mean harm to a terminal, and how to see that they did none."""

from __future__ import annotations

import random
import re
import unicodedata

CORPUS = [
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil/\x07click\x1b]8;;\x07",
    "\x9b2J",
    "\x9d0;owned\x9c",
    "a\rb overwritten",
    "back\b\b\bspace",
    "bell\x07",
    "del\x7f",
    "nul\x00nul",
    "form\x0cfeed\x0bvt",
    "\u202egnp.exe",
    "\u2066\u2067iso\u2069",
    "line\u2028sep\u2029para\x85nel",
    "mark\u200f\u200e\u061c",
    "[/var/x] ordinary path in brackets",
    "[bold red]markup[/]",
    "[link=http://evil]x[/link]",
    "[/]",
    ":smile: :bomb:",
    "tab\tis fine",
    "\x1bP+q544e\x1b\\",
    "\x1b[6n",
    "\x1b[?1049h",
    "\ufffd replacement",
    "ünïcödé 日本語 🎉",
]

HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Newline and tab are what a terminal gets from us on purpose."""


def lines(count: int, seed: int = 1) -> list[str]:
    """Random lines that are mostly made of harmful pieces."""
    chance = random.Random(seed)
    alphabet = [*CORPUS, *(chr(code) for code in range(0x20)), *(chr(c) for c in range(0x7F, 0xA0))]
    alphabet += ["[", "]", "/", "\\", "x", " ", "\U000e0001", "\u202d", "\ud800"]
    return ["".join(chance.choices(alphabet, k=chance.randint(1, 12))) for _ in range(count)]


def is_visible(text: str) -> bool:
    """Whether no character of the text is a control, a surrogate or a separator of lines."""
    kinds = {unicodedata.category(character) for character in text if character not in "\t\n"}
    return not kinds & {"Cc", "Cs", "Zl", "Zp"}
