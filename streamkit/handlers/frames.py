"""Frames of stored records, made of columns: no item, message or encoder for each record.

The encoding of a message is that of its fields, one after the other. So what repeats from record
to record (topics, times of one commit, levels, services) is encoded once, by the codec, and kept;
for a record the parts only have to be put together. Every record of a long resume comes through
here, so this is written for speed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from streamkit.codec import encode
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.journal.base import Stream

__all__ = ["frames_of"]

_KEPT: Final = 4096
"""Encodings of one kind that are kept."""
_LONGEST_KEPT: Final = 256


def frames_of(
    stream: Stream, sequences: Iterable[int], columns: Sequence[Sequence[bytes]]
) -> list[bytes]:
    """The length-prefixed records of rows of updates or logs.

    `columns` are those of the stream's table after the sequence, as UTF-8.
    """
    maps: Sequence[bytes]
    if stream is Stream.UPDATES:
        topics, times, messages, maps = columns
        before = map(_topics.__getitem__, topics)
        after = map(_times.__getitem__, times)
        heads, map_of = _update_heads, _metadata
    else:
        services, levels, _, times, messages, maps = columns
        before = map(_log_times.__getitem__, zip(times, levels, strict=True))
        after = map(_services.__getitem__, services)
        heads, map_of = _log_heads, _fields
    if any(maps):
        after = map(bytes.__add__, after, [map_of(text) if text else b"" for text in maps])
    frames: list[bytes] = []
    add, join, prefixes = frames.append, b"".join, _prefixes
    block = -1
    for sequence, first, message, last in zip(sequences, before, messages, after, strict=True):
        if sequence >> 7 != block:
            block = sequence >> 7
            low, high = (_more, _number(block)[1:]) if block else (_last, b"")
        number = low[sequence & 127]
        size = len(message)
        head = heads[size]
        size += len(first) + len(head) + len(last) + len(number) + len(high)
        add(join((prefixes[size], first, head, message, last, number, high)))
    return frames


class _Kept(dict[Any, bytes]):
    """Encodings by value, each made when it is first asked for."""

    def __init__(self, encoding: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._encoding = encoding

    def __missing__(self, value: Any) -> bytes:
        made = self._encoding(value)
        if len(made) <= _LONGEST_KEPT:
            if len(self) >= _KEPT:
                self.clear()
            self[value] = made
        return made


def _time(text: bytes) -> datetime:
    return datetime.fromisoformat(f"{text.decode()}+00:00")


def _metadata(text: bytes) -> bytes:
    return encode(Update(metadata=json.loads(text)))


def _fields(text: bytes) -> bytes:
    return encode(LogEntry(fields=json.loads(text)))


def _number(sequence: int) -> bytes:
    return encode(Update(sequence=sequence))  # a log entry has it under the same number


_topics: Final = _Kept(lambda topic: encode(Update(topic=topic.decode())))
_times: Final = _Kept(lambda time: encode(Update(timestamp=_time(time))))
_services: Final = _Kept(lambda service: encode(LogEntry(service=service.decode())))
_log_times: Final = _Kept(
    lambda both: encode(LogEntry(timestamp=_time(both[0]), level=both[1].decode()))
)
# What stands before a message, by its size.
_update_heads: Final = _Kept(lambda size: encode(Update(message="-" * size))[: -size or None])
_log_heads: Final = _Kept(lambda size: encode(LogEntry(message="-" * size))[: -size or None])
_prefixes: Final = _Kept(lambda size: b"\0" + size.to_bytes(4, "big"))
_last: Final = [_number(low) for low in range(128)]
_more: Final = [_number(low + 128)[:-1] for low in range(128)]
"""The first byte of a sequence from 128 on; the rest is the encoding of its other bits."""
