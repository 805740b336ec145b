"""What messages that wait hold in memory: all of their text, maps included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from sys import getsizeof
from typing import Any, TypeVar

from streamkit.methods import Records

__all__ = ["Weighed", "weight_of"]

T = TypeVar("T")

_RECORD_COST = 512
"""What a record holds beside its text."""
_ENTRY_COST = 100
"""And an entry of a map."""
_LARGE = 64 * 1024
_SAMPLE = 16

_dictionary = object.__getattribute__


class Weighed(Records[T]):
    """Messages that were weighed: it is done once for a request, and not for nothing."""

    def __init__(self, messages: Iterable[T] = ()) -> None:
        super().__init__(messages)
        self.weight = _RECORD_COST * len(self) + _texts_of(self, len)
        if self.weight - _RECORD_COST * len(self) > _LARGE:
            # A character may take four bytes. To ask for each text costs more than to count.
            self.weight = _RECORD_COST * len(self) + _texts_of(self, getsizeof)


def weight_of(messages: Sequence[Any]) -> int:
    """About how many bytes some updates, log lines or job reports hold.

    Of a long list that nobody has weighed, by a sample: who made it in this process holds it
    anyway. What comes from others is weighed where it comes in.
    """
    if isinstance(messages, Weighed):
        return messages.weight
    if len(messages) <= _SAMPLE:
        return Weighed(messages).weight
    step = len(messages) // _SAMPLE
    return Weighed(messages[::step]).weight * step


def _texts_of(messages: Iterable[Any], size_of: Callable[[str], int]) -> int:
    size = 0
    for message in messages:
        # Attribute access of a generated class costs a microsecond each.
        for value in _dictionary(message, "__dict__").values():
            kind = value.__class__
            if kind is str:
                size += size_of(value)
            elif kind is dict and value:
                size += sum(_ENTRY_COST + size_of(f"{key}{text}") for key, text in value.items())
    return size
