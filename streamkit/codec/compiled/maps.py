"""Maps from text to text, which headers, labels and rows are: read and written by these functions.

A compiled class calls them once a map, so its own text stays short.
"""

from __future__ import annotations

from typing import Any, Final

from streamkit.codec.compiled.reading import more_size
from streamkit.codec.compiled.writing import heads, text_heads
from streamkit.codec.wire.values import Odd

__all__ = ["text_entries", "text_map", "text_pairs"]

_KEY: Final = heads(10)
_VALUE: Final = heads(18)
_KEY_TEXT: Final = text_heads(10)
_VALUE_TEXT: Final = text_heads(18)


def text_entries(found: dict[str, str], buf: bytes, at: int, end: int, tag: int) -> int:
    """Read the entries of one map from `at` on, and return the offset behind.

    `tag` is one byte. Both key and value have to be there, in this order.
    """
    rest = buf[at:end]
    if rest.isascii():
        # All lengths are below 128, and one conversion to text serves all keys and values.
        text = rest.decode()
        start, size = 0, end - at
        while start < size and rest[start] == tag:
            split = start + 4 + rest[start + 3]
            stop = split + 2 + rest[split + 1]
            if rest[start + 2] != 10 or rest[split] != 18 or start + 2 + rest[start + 1] != stop:
                raise Odd
            found[text[start + 4 : split]] = text[split + 2 : stop]
            start = stop
        return at + start
    while at < end and buf[at] == tag:
        size = buf[at + 1]
        at += 2
        if size > 127:
            size, at = more_size(buf, size, at)
        stop = at + size
        size = buf[at + 1]
        if buf[at] != 10:
            raise Odd
        at += 2
        if size > 127:
            size, at = more_size(buf, size, at)
        key = buf[at : at + size].decode()
        at += size
        size = buf[at + 1]
        if buf[at] != 18:
            raise Odd
        at += 2
        if size > 127:
            size, at = more_size(buf, size, at)
        if at + size != stop:
            raise Odd
        found[key] = buf[at:stop].decode()
        at = stop
    return at


def text_map(value: Any, texts: list[str], entry_heads: dict[int, bytes]) -> bytes:
    """Write a map whose tag is one byte."""
    if type(value) is not dict:
        raise Odd
    # Short ASCII, the usual case: its length in characters is that in bytes, so the field is
    # put together as text and encoded at once. Anything else leaves this form by an exception
    # or by not being ASCII.
    parts: list[str] = []
    key_text, value_text = _KEY_TEXT, _VALUE_TEXT
    try:
        for key, one in value.items():
            first = len(key)
            second = len(one)
            parts += (texts[first + second + 4], key_text[first], key, value_text[second], one)
        text = "".join(parts)
        if text.isascii():
            return text.encode()
    except IndexError:
        pass
    return text_pairs(value, entry_heads)


def text_pairs(value: Any, entry_heads: dict[int, bytes]) -> bytes:
    """Write a map of any texts."""
    if type(value) is not dict:
        raise Odd
    parts: list[bytes] = []
    for key, one in value.items():
        first, second = key.encode(), one.encode()
        entry = _KEY[len(first)] + first + _VALUE[len(second)] + second
        parts += (entry_heads[len(entry)], entry)
    return b"".join(parts)
