"""The JSON of updates and log entries in one pass over their bytes: most of what is read as events.

What repeats from record to record (topics, services, levels, the second of a time) is made once
and kept. Whatever is unusual goes through the message: `to_json` of the codec, which knows every
one, is what this has to equal; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import Any

from streamkit.codec import to_json
from streamkit.generated.streamservice import LogEntry, Update

__all__ = ["record_json", "stored_json"]

_Named = tuple[tuple[str, str], ...]

_TEXT, _KEPT_TEXT, _TIME, _PAIRS, _NUMBER, _SEQUENCE = range(6)
# What stands behind each tag: how it is read, and the name that it has.
_FIELDS: dict[type, dict[int, tuple[int, str]]] = {
    Update: {
        0x0A: (_KEPT_TEXT, "topic"),
        0x12: (_TEXT, "message"),
        0x1A: (_TIME, "timestamp"),
        0x22: (_PAIRS, "metadata"),
        0x50: (_SEQUENCE, "sequence"),
        0x60: (_NUMBER, "skipped"),
    },
    LogEntry: {
        0x0A: (_TIME, "timestamp"),
        0x12: (_KEPT_TEXT, "level"),
        0x1A: (_TEXT, "message"),
        0x22: (_KEPT_TEXT, "service"),
        0x2A: (_PAIRS, "fields"),
        0x50: (_SEQUENCE, "sequence"),
        0x60: (_NUMBER, "skipped"),
    },
}
_LONGEST_KEPT = 256
_EPOCH = datetime(1970, 1, 1)
_LAST_SECOND = 253402300799  # of the year 9999


class _Unusual(Exception):
    """Something that this way does not read."""


def stored_json(kind: type[Any], data: bytes, at: int, end: int) -> tuple[int, str] | None:
    """Return the sequence and the JSON of an encoded record, the fields in the order of their
    numbers. None: it is a control, of another kind, or in a form of its own."""
    fields = _FIELDS.get(kind)
    if fields is None:
        return None
    parts: list[str] = []
    pairs: list[str] = []
    pairs_name = ""
    sequence = last = 0
    try:
        while at < end:
            tag = data[at]
            how, name = fields[tag]
            if tag < last or (tag == last and how != _PAIRS):
                return None  # not as it is written here
            last = tag
            size = data[at + 1]
            at += 2
            if size > 127:
                size, at = _more(data, size & 127, at)
            if how != _PAIRS and pairs:
                parts.append(f'"{pairs_name}":{{{",".join(pairs)}}}')
                pairs.clear()
            if how >= _NUMBER:
                if how == _SEQUENCE:
                    sequence = size
                parts.append(f'"{name}":"{size}"')
                continue
            value = data[at : at + size]
            at += size
            if how == _TEXT:
                parts.append(f'"{name}":{quoted(value.decode())}')
            elif how == _KEPT_TEXT:
                make = _kept_text if size <= _LONGEST_KEPT else _kept_text.__wrapped__
                parts.append(make(name, value))
            elif how == _TIME:
                parts.append(_time(value))
            else:
                pairs_name = name
                pairs.append(_pair(value))
    except (KeyError, IndexError, UnicodeDecodeError, _Unusual):
        return None
    if at != end:
        return None
    if pairs:
        parts.append(f'"{pairs_name}":{{{",".join(pairs)}}}')
    return sequence, f"{{{','.join(parts)}}}"


def _more(data: bytes, value: int, at: int) -> tuple[int, int]:
    """Read the bytes of a number after its first one."""
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Unusual


@lru_cache(maxsize=4096)
def _kept_text(name: str, value: bytes) -> str:
    return f'"{name}":{quoted(value.decode())}'


def _pair(entry: bytes) -> str:
    """Read one entry of a map, whose key and value are both there and in this order."""
    if entry[0] != 0x0A:
        raise _Unusual
    size, at = entry[1], 2
    if size > 127:
        size, at = _more(entry, size & 127, at)
    key = entry[at : at + size]
    at += size
    if entry[at] != 0x12:
        raise _Unusual
    size = entry[at + 1]
    at += 2
    if size > 127:
        size, at = _more(entry, size & 127, at)
    if at + size != len(entry):
        raise _Unusual
    return f"{quoted(key.decode())}:{quoted(entry[at:].decode())}"


@lru_cache(maxsize=1024)
def _time(value: bytes) -> str:
    seconds = nanos = at = 0
    while at < len(value):
        tag = value[at]
        number = value[at + 1]
        at += 2
        if number > 127:
            number, at = _more(value, number & 127, at)
        if tag == 0x08:
            seconds = number
        elif tag == 0x10:
            nanos = number
        else:
            raise _Unusual
    if seconds > _LAST_SECOND or nanos > 999_999_999:
        raise _Unusual  # before 1970, or none
    return f'"timestamp":"{_second(seconds)}{_fraction(nanos // 1000)}Z"'


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def _fraction(micro: int) -> str:
    if not micro:
        return ""
    return f".{micro:06d}" if micro % 1000 else f".{micro // 1000:03d}"


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
    return f"{time.isoformat()[:19]}{_fraction(time.microsecond)}Z"
