"""Writing many small text maps at once: the rows of a query's result.

A repeated message with one map<string, string>, all elements having the same short ASCII keys, is
written column by column. Every loop below runs inside the interpreter's C code; a loop of
statements over the cells takes three times as long. Whatever does not have this form raises `Odd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from streamkit.codec.wire.scan import varint
from streamkit.codec.wire.values import Odd

__all__ = ["rows_bytes"]

_KEYS_KEPT: Final = 256
_SIZES_KEPT: Final = 2048


class _Heads(dict[int, str]):
    """Size of a value -> what stands before it, as Latin-1 text. Filled as sizes are met."""

    def __init__(self, before: bytes, key: str | None = None) -> None:
        super().__init__()
        self.before = before
        self.key = key

    def __missing__(self, size: int) -> str:
        if len(self) >= _SIZES_KEPT:
            self.clear()
        head = varint(size)
        if self.key is not None:
            # An entry: its own size comes first, then the key, then the tag of the value.
            raw = self.key.encode("ascii")
            head = b"\x0a" + varint(len(raw)) + raw + b"\x12" + head
            head = varint(len(head) + size) + head
        self[size] = text = (self.before + head).decode("latin-1")
        return text


_elements: dict[bytes, _Heads] = {}
_entries: dict[tuple[int, str], _Heads] = {}


def _entry_heads(tag: int, key: str) -> _Heads:
    heads = _entries.get((tag, key))
    if heads is None:
        if type(key) is not str or not key.isascii() or len(key) > 127:
            raise Odd
        if len(_entries) >= _KEYS_KEPT:
            _entries.clear()
        heads = _entries[tag, key] = _Heads(varint(tag), key)
    return heads


def rows_bytes(
    messages: Sequence[Any], cls: type, name: str, map_tag: int, element_tag: bytes
) -> bytes:
    """Return the repeated field; `name` and `map_tag` are those of the only field of `cls`."""
    states = [message.__dict__ for message in messages]
    if set(map(type, messages)) != {cls} or set(map(len, states)) != {1}:
        raise Odd
    try:
        maps = [state[name] for state in states]
        keys = tuple(maps[0])
        if not keys or set(map(len, maps)) != {len(keys)}:
            raise Odd
        found = list(map(itemgetter(*keys), maps))
    except KeyError:  # a row without columns, or as many of them with other keys
        raise Odd from None
    columns: list[Sequence[Any]] = list(zip(*found, strict=True)) if len(keys) > 1 else [found]
    parts: list[Any] = []
    for key, column in zip(keys, columns, strict=True):
        heads = _entry_heads(map_tag, key)
        parts += (map(heads.__getitem__, map(len, column)), column)
    # join() refuses everything that is not text.
    elements = list(map("".join, zip(*parts, strict=True)))
    if element_tag not in _elements:
        _elements[element_tag] = _Heads(element_tag)
    sizes = map(_elements[element_tag].__getitem__, map(len, elements))
    text = "".join(chain.from_iterable(zip(sizes, elements, strict=True)))
    if text.isascii():
        return text.encode()
    if "".join(chain.from_iterable(columns)).isascii():
        # Only sizes of two bytes are not ASCII.
        return text.encode("latin-1")
    raise Odd
