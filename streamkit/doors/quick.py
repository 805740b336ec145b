"""The JSON of updates and log entries in one pass: most of what is read as events.

`to_json` of the codec, which knows every message, is what this has to equal; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring as quoted
from typing import Any

from streamkit.codec import to_json
from streamkit.generated.streamservice import LogEntry, Update

__all__ = ["record_json"]

_Named = tuple[tuple[str, str], ...]


def record_json(message: Any) -> str:
    """Return a record as proto3's JSON."""
    kind = type(message)
    if kind is Update:
        named: _Named = (("topic", message.topic), ("message", message.message))
        return _joined(message, named, message.metadata, "metadata", timed=2)
    if kind is LogEntry:
        named = (
            ("level", message.level),
            ("message", message.message),
            ("service", message.service),
        )
        return _joined(message, named, message.fields, "fields", timed=0)
    return to_json(message)


def _joined(
    message: Update | LogEntry,
    named: _Named,
    pairs: Mapping[str, str],
    pairs_name: str,
    *,
    timed: int,
) -> str:
    """Join the fields in the order of their numbers, the time at its place among the texts."""
    if message.__dict__.get("control") is not None:
        return to_json(message)
    parts = []
    for place, (name, text) in enumerate(named):
        if place == timed and message.__dict__.get("timestamp") is not None:
            parts.append(f'"timestamp":"{_moment(message.timestamp)}"')
        if text:
            parts.append(f'"{name}":{quoted(text)}')
    if timed == len(named) and message.__dict__.get("timestamp") is not None:
        parts.append(f'"timestamp":"{_moment(message.timestamp)}"')
    if pairs:
        inner = ",".join([f"{quoted(key)}:{quoted(value)}" for key, value in pairs.items()])
        parts.append(f'"{pairs_name}":{{{inner}}}')
    if message.sequence:
        parts.append(f'"sequence":"{message.sequence}"')
    if message.skipped:
        parts.append(f'"skipped":"{message.skipped}"')
    return f"{{{','.join(parts)}}}"


def _moment(time: datetime) -> str:
    if time.tzinfo is not UTC and time.tzinfo is not None:
        time = time.astimezone(UTC)
    micro = time.microsecond
    if not micro:
        fraction = ""
    elif micro % 1000:
        fraction = f".{micro:06d}"
    else:
        fraction = f".{micro // 1000:03d}"
    return f"{time.isoformat()[:19]}{fraction}Z"
