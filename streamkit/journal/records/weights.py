"""What messages that wait hold in memory: all of their text, maps included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof
from typing import Any

__all__ = ["weight_of"]

_RECORD_COST = 512
"""What a record holds beside its text."""
_ENTRY_COST = 100
"""And an entry of a map."""

_dictionary = object.__getattribute__


def weight_of(messages: Iterable[Any]) -> int:
    """About how many bytes some updates, log lines or job reports hold."""
    weight = 0
    for message in messages:
        # Attribute access of a generated class costs a microsecond each.
        weight += _RECORD_COST
        for value in _dictionary(message, "__dict__").values():
            kind = value.__class__
            if kind is str:
                weight += getsizeof(value)
            elif kind is dict and value:
                weight += _weight_of_map(value)
    return weight


def _weight_of_map(entries: Mapping[Any, Any]) -> int:
    return sum(_ENTRY_COST + getsizeof(key) + getsizeof(value) for key, value in entries.items())
