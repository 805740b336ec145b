"""The maps of stored records, from their JSON to their encoding, a column at a time.

A map of short texts is a name, a colon and a value within quotes, again and again. Without a
backslash no quote stands within a text, so that one split at the quotes finds all names and values
of a column. Whatever is different goes through JSON and the codec, which this has to equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Final

__all__ = ["PairColumns"]

_KEPT: Final = 4096
"""Heads of one kind that are kept."""
_LONGEST_KEPT: Final = 256
_BETWEEN: Final = b"}\n{"
"""What stands between two maps that are joined by a line's end, which no JSON text has in it."""

_scan: Final[Callable[[str, int], tuple[dict[str, str], int]]] = vars(json.JSONDecoder())[
    "scan_once"
]
"""Reads JSON that has no space around it, as what is stored has none."""


class PairColumns:
    """Encodes one field of a message, a map of texts."""

    def __init__(self, encode: Callable[[dict[str, str]], bytes]) -> None:
        """`encode` gives the encoding of a message with this map and nothing else."""
        self._encode = encode
        self._heads = _Heads(encode)

    def columns(self, maps: Sequence[bytes]) -> list[Iterable[bytes]]:
        """Return columns that give, put together row by row, the encodings of maps as JSON. An
        empty text is a map that is not there."""
        if not any(maps):
            return []
        return self._alike(maps) or [list(map(self._one, maps))]

    def _alike(self, maps: Sequence[bytes]) -> list[Iterable[bytes]] | None:
        """The columns of maps that have all the same number of pairs; None: they have not."""
        joined = b"\n".join(maps)
        parts = joined.split(b'"')
        pairs, rest = divmod(len(parts) - 1, 4 * len(maps))
        if rest or not pairs or b"\\" in joined:
            return None
        each = 4 * pairs
        if parts[each:-1:each].count(_BETWEEN) != len(maps) - 1:
            return None
        columns: list[Iterable[bytes]] = []
        for first in range(1, each, 4):
            values = parts[first + 2 :: each]
            sizes = map(len, values)
            names = parts[first::each]
            columns += (
                list(map(self._heads.__getitem__, zip(names, sizes, strict=True))), values,
            )  # fmt: skip
        return columns

    def _one(self, text: bytes) -> bytes:
        if not text:
            return b""
        parts = text.split(b'"')
        if b"\\" in text or len(parts) == 1:
            return self._encode(_scan(text.decode(), 0)[0])
        heads = self._heads
        made: list[bytes] = []
        for at in range(1, len(parts), 4):
            value = parts[at + 2]
            made += (heads[parts[at], len(value)], value)
        return b"".join(made)


class _Heads(dict[tuple[bytes, int], bytes]):
    """What stands before a value, by the name and the value's size."""

    def __init__(self, encode: Callable[[dict[str, str]], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, key: tuple[bytes, int]) -> bytes:
        name, size = key
        made = self._encode({name.decode(): "-" * size})[: -size or None]
        if len(made) <= _LONGEST_KEPT:
            if len(self) >= _KEPT:
                self.clear()
            self[key] = made
        return made
