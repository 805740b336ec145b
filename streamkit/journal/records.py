"""From a message that somebody wants stored to the item that everybody reads, and back from rows.

This is the path of every record, in and out. A generated class's own constructor and attribute
access cost several microseconds per message, so fields are read from and written to the instance
dictionary. An item's message is a copy: the caller may use theirs again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.journal.base import Entry, Item

__all__ = ["LEVELS", "item_size", "log_item", "make_log", "make_update", "update_item", "utc"]

LEVELS = ("debug", "info", "warn", "error")
"""The levels of a log line; the index is the rank."""

_RANKS = {level: rank for rank, level in enumerate(LEVELS)}
_UNSET_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_OVERHEAD = 640
"""What an item, its message and its frame cost beside their text, measured with 80-byte texts."""

_dictionary = object.__getattribute__
_BLANK_UPDATE = {**_dictionary(Update(), "__dict__"), "_serialized_on_wire": True}
_BLANK_LOG = {**_dictionary(LogEntry(), "__dict__"), "_serialized_on_wire": True}


def utc(time: datetime) -> datetime:
    """The same time in UTC; a time without a zone is taken as UTC."""
    if time.tzinfo is UTC:
        return time
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def make_update(
    sequence: int, topic: str, time: datetime, message: str, metadata: dict[str, str]
) -> Update:
    """An update as its class would construct it."""
    update = Update.__new__(Update)
    fields = _dictionary(update, "__dict__")
    fields.update(_BLANK_UPDATE)
    fields["topic"] = topic
    fields["message"] = message
    fields["timestamp"] = time
    fields["metadata"] = metadata
    fields["sequence"] = sequence
    return update


def make_log(
    sequence: int, service: str, level: str, time: datetime, message: str, fields: dict[str, str]
) -> LogEntry:
    """A log entry as its class would construct it."""
    entry = LogEntry.__new__(LogEntry)
    own = _dictionary(entry, "__dict__")
    own.update(_BLANK_LOG)
    own["service"] = service
    own["level"] = level
    own["timestamp"] = time
    own["message"] = message
    own["fields"] = fields
    own["sequence"] = sequence
    return entry


def update_item(update: Update, sequence: int, now: datetime) -> Entry:
    """The item to store for a published update; a missing timestamp becomes `now`."""
    given = _dictionary(update, "__dict__")
    topic = _text(update, given, "topic")
    message = _text(update, given, "message")
    metadata = _map(update, given, "metadata")
    time = _time(update, given, now)
    made = make_update(sequence, topic, time, message, metadata)
    return Item(sequence, topic, 0, made, item_size(topic, message, metadata))


def log_item(entry: LogEntry, sequence: int, now: datetime) -> Entry:
    """The item to store for a log line; InvalidArgumentError for a level that is none."""
    given = _dictionary(entry, "__dict__")
    service = _text(entry, given, "service")
    message = _text(entry, given, "message")
    level = _text(entry, given, "level")
    rank = _RANKS.get(level)
    if rank is None:
        raise InvalidArgumentError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")
    fields = _map(entry, given, "fields")
    time = _time(entry, given, now)
    made = make_log(sequence, service, level, time, message, fields)
    return Item(sequence, service, rank, made, item_size(service, message, fields))


def item_size(key: str, message: str, extra: dict[str, str]) -> int:
    """About what an item costs in memory once it is framed."""
    size = _OVERHEAD + 2 * (len(key) + len(message))
    if extra:
        size += 200 + sum(2 * (len(name) + len(text)) + 100 for name, text in extra.items())
    return size


def _text(message: object, given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if value.__class__ is str:
        return value
    value = getattr(message, name)  # the class's own default for a field that was not set
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} must be text, not {type(value).__name__}")
    return value


def _map(message: object, given: dict[str, Any], name: str) -> dict[str, str]:
    value = given.get(name)
    if value.__class__ is not dict:
        value = getattr(message, name)
    if not value:
        return {}
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidArgumentError(f"{name} must map text to text, not {key!r} to {text!r}")
    return dict(value)


def _time(message: Update | LogEntry, given: dict[str, Any], now: datetime) -> datetime:
    value = given.get("timestamp")
    if not isinstance(value, datetime):
        value = message.timestamp
    value = utc(value)
    return now if value == _UNSET_TIME else value
