"""Foreign text made safe for a terminal and for JSON. Pure; every text on a terminal goes through.

Hostile is what moves the cursor, changes the terminal or the order in which text is read: C0
controls except tab, DEL, C1 controls, bidirectional overrides and marks, line and paragraph
separators, and lone surrogates, which no encoder accepts. Each becomes a visible escape.
"""

from __future__ import annotations

import json
import re

__all__ = ["json_text", "sanitise", "sanitise_lines"]

_HOSTILE_CLASS = (
    "\x00-\x08\x0a-\x1f"  # C0 except tab; sanitise_lines divides at newlines first
    "\x7f-\x9f"  # DEL and C1: 0x9b alone starts an escape sequence
    "\u061c\u200e\u200f"  # marks of direction
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separator
    "\ud800-\udfff"  # lone surrogates
)
_HOSTILE = re.compile(f"[{_HOSTILE_CLASS}]")


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def sanitise(text: str) -> str:
    """Return `text` as one line without a character that a terminal would act on."""
    return _HOSTILE.sub(_visible, text)


def sanitise_lines(text: str) -> list[str]:
    """Return the lines of a text that may have several, each made safe. Never empty."""
    return [sanitise(line.removesuffix("\r")) for line in text.rstrip("\n").split("\n")]


def json_text(value: object) -> str:
    """Return `value` as one line of JSON whose strings hold no hostile character as such."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # What json.dumps left is inside a string, where \\uXXXX means the same character.
    return _HOSTILE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
