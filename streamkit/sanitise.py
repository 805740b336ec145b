"""Foreign text made safe for a terminal and for JSON. Pure; every text on a terminal goes through.

Hostile is what moves the cursor, changes the terminal or the order in which text is read: C0
controls except tab, DEL, C1 controls, bidirectional overrides and marks, line and paragraph
separators, and lone surrogates, which no encoder accepts. What shows nothing, such as a soft
hyphen, a zero-width space or a tag character, makes two texts that differ look alike. Each becomes
a visible escape. Joiners stay where a script or an emoji needs them.
"""

from __future__ import annotations

import re

__all__ = ["json_text", "sanitise", "sanitise_lines"]

_HOSTILE_CLASS = (
    "\x00-\x08\x0a-\x1f"  # C0 except tab; sanitise_lines divides at newlines first
    "\x7f-\x9f"  # DEL and C1: 0x9b alone starts an escape sequence
    "\u061c\u200e\u200f"  # marks of direction
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # what shows nothing
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separator
    "\ud800-\udfff"  # lone surrogates
)
_JOINS = "\u0590-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u1800-\u18af\ua840-\uabff"
_EMOJI = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_HOSTILE = re.compile(
    f"[{_HOSTILE_CLASS}]|(?<![{_JOINS}{_EMOJI}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINS}{_EMOJI}])"
)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def sanitise(text: str) -> str:
    """Return `text` as one line without a character that a terminal would act on."""
    return _HOSTILE.sub(_visible, text)


def sanitise_lines(text: str) -> list[str]:
    """Return the lines of a text that may have several, each made safe. Never empty."""
    return [sanitise(line.removesuffix("\r")) for line in text.rstrip("\n").split("\n")]


def json_text(value: object) -> str:
    """Return `value` as one line of JSON whose strings hold no hostile character as such."""
    import json  # `--help` needs none of it

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # What json.dumps left is inside a string, where \\uXXXX means the same character.
    return _HOSTILE.sub(lambda match: json.dumps(match[0])[1:-1], text)
