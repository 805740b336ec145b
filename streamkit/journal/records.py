"""From a message that somebody wants stored to the item that everybody reads, and back from rows.

This is the path of every record, in and out. A generated class's own constructor and attribute
access cost several microseconds per message, so fields are read from and written to the instance
dictionary. An item's message is a copy: the caller may use theirs again.
"""

from __future__ import annotations

from datetime import UTC, datetime

from betterproto import PLACEHOLDER

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

_new = object.__new__
_assign = object.__setattr__
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
    own = _BLANK_UPDATE.copy()
    own["topic"] = topic
    own["message"] = message
    own["timestamp"] = time
    own["metadata"] = metadata
    own["sequence"] = sequence
    made = _new(Update)
    _assign(made, "__dict__", own)
    return made


def make_log(
    sequence: int, service: str, level: str, time: datetime, message: str, fields: dict[str, str]
) -> LogEntry:
    """A log entry as its class would construct it."""
    own = _BLANK_LOG.copy()
    own["service"] = service
    own["level"] = level
    own["timestamp"] = time
    own["message"] = message
    own["fields"] = fields
    own["sequence"] = sequence
    made = _new(LogEntry)
    _assign(made, "__dict__", own)
    return made


def update_item(update: Update, sequence: int, now: datetime) -> Entry:
    """The item to store for a published update; a missing timestamp becomes `now`."""
    own = _dictionary(update, "__dict__")
    topic = own.get("topic")
    message = own.get("message")
    if topic.__class__ is not str or message.__class__ is not str:
        topic, message = _text(update, "topic"), _text(update, "message")
    metadata = own.get("metadata")
    metadata = _copy(update, "metadata") if metadata and metadata is not PLACEHOLDER else {}
    time = own.get("timestamp")
    if time.__class__ is not datetime or time.tzinfo is not UTC or time.year == 1970:
        time = _time(time, now)
    made = make_update(sequence, topic, time, message, metadata)
    return Item(sequence, topic, 0, made, item_size(topic, message, metadata))


def log_item(entry: LogEntry, sequence: int, now: datetime) -> Entry:
    """The item to store for a log line; InvalidArgumentError for a level that is none."""
    own = _dictionary(entry, "__dict__")
    service = own.get("service")
    message = own.get("message")
    if service.__class__ is not str or message.__class__ is not str:
        service, message = _text(entry, "service"), _text(entry, "message")
    level = own.get("level")
    rank = _RANKS.get(level)
    if rank is None:
        raise InvalidArgumentError(
            f"level must be one of {', '.join(LEVELS)}, not {_text(entry, 'level')!r}"
        )
    fields = own.get("fields")
    fields = _copy(entry, "fields") if fields and fields is not PLACEHOLDER else {}
    time = own.get("timestamp")
    if time.__class__ is not datetime or time.tzinfo is not UTC or time.year == 1970:
        time = _time(time, now)
    made = make_log(sequence, service, level, time, message, fields)
    return Item(sequence, service, rank, made, item_size(service, message, fields))


def item_size(key: str, message: str, extra: dict[str, str]) -> int:
    """About what an item costs in memory once it is framed."""
    size = _OVERHEAD + 2 * (len(key) + len(message))
    if extra:
        size += 200 + sum(2 * (len(name) + len(text)) + 100 for name, text in extra.items())
    return size


def _time(given: object, now: datetime) -> datetime:
    """The time of a record: its own in UTC, or `now` if it has none."""
    if not isinstance(given, datetime):
        return now
    time = given if given.tzinfo is UTC else utc(given)
    return now if time == _UNSET_TIME else time


def _text(message: Update | LogEntry, name: str) -> str:
    value = getattr(message, name)  # for a field that is not set, the class's own default
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} must be text, not {type(value).__name__}")
    return value


def _copy(message: Update | LogEntry, name: str) -> dict[str, str]:
    value: dict[str, str] = dict(getattr(message, name))
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidArgumentError(f"{name} must map text to text, not {key!r} to {text!r}")
    return value
