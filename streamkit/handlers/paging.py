"""Lists in pages: what fits into a message of any client, and where the next page begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from streamkit.config import RequestLimits
from streamkit.errors import InvalidArgumentError

__all__ = ["PAGE_BYTES", "page_of", "place_of", "token_of"]

T = TypeVar("T")

PAGE_BYTES = RequestLimits().page


def token_of(kind: str, place: int) -> str:
    """What names a place in one list. Clients give it back and do not look into it."""
    return f"{kind}-{place}"


def place_of(token: str, kind: str) -> int | None:
    """The place that a token names; None for the first page. Raises InvalidArgumentError."""
    if not token:
        return None
    named, dash, place = token.rpartition("-")
    if named != kind or not dash or not place.isdecimal() or len(place) > 19:
        raise InvalidArgumentError(
            "page_token must be the next_page_token of a reply to the same list",
            hint="leave it empty to begin at the first page",
        )
    return int(place)


def page_of(
    items: Sequence[T], token: str, kind: str, weigh: Callable[[T], int]
) -> tuple[Sequence[T], str]:
    """A page of a list that lies ready, and the token of the next one, "" after the last."""
    start = place_of(token, kind) or 0
    size = 0
    for place in range(start, len(items)):
        size += weigh(items[place])
        if size > PAGE_BYTES and place > start:
            return items[start:place], token_of(kind, place)
    return items[start:], ""
