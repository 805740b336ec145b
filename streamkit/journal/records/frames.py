"""Encoded records, made once: the same bytes go to every reader that gets the same delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from streamkit.journal.base import Delivery
from streamkit.journal.live.ring import Items

__all__ = ["joined_frames"]

T = TypeVar("T")


def joined_frames(delivery: Delivery[T], make_frame: Callable[[T], bytes]) -> bytes:
    """The delivery's records as one piece of bytes: each record's frame, one after the other.

    `make_frame` encodes one record with its length prefix and must be the same function for all
    readers. A frame is made by the first reader that needs it; the joined bytes are made by the
    first reader of a delivery and shared by all others that wait with the same selector.
    """
    items = delivery.entries
    if isinstance(items, Items) and items.joined is not None:
        return items.joined
    parts = []
    for item in items:
        frame = item.frame
        if frame is None:
            frame = item.frame = make_frame(item.message)
        parts.append(frame)
    joined = parts[0] if len(parts) == 1 else b"".join(parts)
    if isinstance(items, Items):
        items.joined = joined
    return joined
