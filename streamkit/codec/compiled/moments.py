"""The last few times that were read, so that one which is read again costs a look-up."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from streamkit.codec.wire.values import timestamp

__all__ = ["RECENT", "moment"]

_KEPT: Final = 256

RECENT: Final[dict[bytes, datetime]] = {}
"""By the bytes of a Timestamp in its usual form."""


def moment(raw: bytes) -> datetime:
    """Read the usual form of a Timestamp."""
    found = timestamp(raw, 0, len(raw))
    if len(RECENT) >= _KEPT:
        RECENT.clear()
    RECENT[raw] = found
    return found
