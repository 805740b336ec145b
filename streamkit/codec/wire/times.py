"""Timestamp and Duration as the datetime and timedelta of Python.

The rules, the same on every path: a Timestamp becomes an aware datetime in UTC; a naive datetime
is read as UTC. Nanoseconds are cut to microseconds, towards zero. What Python cannot hold (before
year 1, after year 9999, more than 999,999,999 days) becomes the nearest value that it can.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from streamkit.codec.wire.field import EPOCH

__all__ = ["duration_from", "duration_parts", "timestamp_from", "timestamp_parts"]

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def _microseconds(nanos: int) -> int:
    return nanos // 1000 if nanos >= 0 else -(-nanos // 1000)


def timestamp_from(seconds: int, nanos: int) -> datetime:
    try:
        return EPOCH + timedelta(0, seconds, _microseconds(nanos))
    except OverflowError:
        return _FIRST if seconds < 0 else _LAST


def timestamp_parts(value: datetime) -> tuple[int, int]:
    """Return seconds and nanos; nanos always count forwards."""
    if value.utcoffset() is None:
        value = value.replace(tzinfo=UTC)
    since = value - EPOCH
    return since.days * 86400 + since.seconds, since.microseconds * 1000


def duration_from(seconds: int, nanos: int) -> timedelta:
    try:
        return timedelta(0, seconds, _microseconds(nanos))
    except OverflowError:
        return timedelta.min if seconds < 0 else timedelta.max


def duration_parts(value: timedelta) -> tuple[int, int]:
    """Return seconds and nanos, both of the same sign."""
    seconds, micros = value.days * 86400 + value.seconds, value.microseconds
    if seconds < 0 and micros:
        return seconds + 1, (micros - 1_000_000) * 1000
    return seconds, micros * 1000
