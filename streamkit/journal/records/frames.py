"""Records as they go over the wire, made once: the same bytes go to every reader of the same.

Frames of stored records are made of columns: no item, message or encoder for each record. The
encoding of a message is that of its fields, one after the other. So what repeats from record to
record (topics, times of one commit, levels, services) is encoded once, by the codec, and kept; for
a record the parts only have to be put together. Every record of a long resume comes through here,
so this is written for speed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from streamkit.codec import encode, frame
from streamkit.framing import Framed, prefix
from streamkit.generated.streamservice import JobProgress, LogEntry, Update
from streamkit.journal.base import Delivery, Item, Items, Record, Stream
from streamkit.journal.records.columns import StoredItems
from streamkit.journal.records.items import RowItem
from streamkit.journal.records.pairs import PairColumns

__all__ = ["framed", "frames_of", "joined_frames"]

T = TypeVar("T")

_KEPT: Final = 4096
"""Encodings of one kind that are kept."""
_LONGEST_KEPT: Final = 256


def framed(batch: Delivery[Record], stream: Stream) -> Framed:
    """All entries in one piece; the bytes are shared with the other readers of the same keys."""
    entries = batch.items
    if batch.skipped:
        skipped = batch.skipped
        parts = [_frame_with_count(entry, skipped.get(entry.key, 0)) for entry in entries]
        return Framed(b"".join(parts), len(parts))
    if isinstance(entries, Items) and entries.framed is not None:
        return entries.framed
    if isinstance(entries, StoredItems):
        frames = frames_of(stream, entries.sequences, entries.columns)
        return Framed(b"".join(frames), len(frames))
    if len(entries) > 1 and entries[-1].frame is None:
        _frame_rows(stream, entries)
    made = Framed(joined_frames(batch, frame), len(entries))
    if isinstance(entries, Items):
        entries.framed = made
    return made


def _frame_rows(stream: Stream, entries: Sequence[Item[Record]]) -> None:
    """Make the frames that are missing, together and without the messages."""
    bare = [entry for entry in entries if entry.frame is None and isinstance(entry, RowItem)]
    found = StoredItems.of_rows(stream, [entry.row for entry in bare])
    for entry, made in zip(bare, frames_of(stream, found.sequences, found.columns), strict=True):
        entry.frame = made


def _frame_with_count(entry: Item[Record], skipped: int) -> bytes:
    message = entry.message
    if not skipped or isinstance(message, JobProgress):
        if entry.frame is None:
            entry.frame = frame(message)
        return entry.frame
    counted: Update | LogEntry = copy.copy(message)
    counted.skipped = skipped
    return frame(counted)


def joined_frames(delivery: Delivery[T], make_frame: Callable[[T], bytes]) -> bytes:
    """The delivery's records as one piece of bytes: each record's frame, one after the other.

    `make_frame` encodes one record with its length prefix and must be the same function for all
    readers. A frame is made by the first reader that needs it; the joined bytes are made by the
    first reader of a delivery and shared by all others that wait with the same selector.
    """
    items = delivery.items
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


def frames_of(
    stream: Stream, sequences: Sequence[int], columns: Sequence[Sequence[bytes]]
) -> list[bytes]:
    """The length-prefixed records of rows of updates or logs.

    The sequences ascend; `columns` are those of the stream's table after them, as UTF-8.
    """
    if stream is Stream.UPDATES:
        topics, times, messages, maps = columns
        before = map(_topics.__getitem__, topics)
        after = map(_times.__getitem__, times)
        heads, pairs = _update_heads, _metadata
    else:
        services, levels, _, times, messages, maps = columns
        before = map(_log_times.__getitem__, zip(times, levels, strict=True))
        after = map(_services.__getitem__, services)
        heads, pairs = _log_heads, _fields
    # No line of Python runs for a record: what does is a third of the time.
    bodies = [
        *map(
            b"".join,
            zip(
                before,
                map(heads.__getitem__, map(len, messages)),
                messages,
                after,
                *pairs.columns(maps),
                *_numbers(sequences),
                strict=True,
            ),
        )
    ]
    return [*map(bytes.__add__, map(_prefixes.__getitem__, map(len, bodies)), bodies)]


def _numbers(sequences: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
    """The encodings of sequences: their beginnings, and what follows each."""
    begin: list[bytes] = []
    rest: list[bytes] = []
    at, end = (sequences[0], sequences[-1] + 1) if sequences else (0, 0)
    if end - at == len(sequences):
        while at < end:  # in blocks that differ in their beginnings alone
            block, first = at >> 7, at & 127
            low, high = _block(block)
            begin += low[first : first + end - at]
            at = (block + 1) << 7
            rest += [high] * (len(begin) - len(rest))
    else:
        for sequence in sequences:
            low, high = _block(sequence >> 7)
            begin.append(low[sequence & 127])
            rest.append(high)
    return begin, rest


def _block(block: int) -> tuple[list[bytes], bytes]:
    return (_more, _blocks[block]) if block else (_last, b"")


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


def _number(sequence: int) -> bytes:
    return encode(Update(sequence=sequence))  # a log entry has it under the same number


_metadata: Final = PairColumns(lambda pairs: encode(Update(metadata=pairs)))
_fields: Final = PairColumns(lambda pairs: encode(LogEntry(fields=pairs)))
_topics: Final = _Kept(lambda topic: encode(Update(topic=topic.decode())))
_times: Final = _Kept(lambda time: encode(Update(timestamp=_time(time))))
_services: Final = _Kept(lambda service: encode(LogEntry(service=service.decode())))
_log_times: Final = _Kept(
    lambda both: encode(LogEntry(timestamp=_time(both[0]), level=both[1].decode()))
)
# What stands before a message, by its size.
_update_heads: Final = _Kept(lambda size: encode(Update(message="-" * size))[: -size or None])
_log_heads: Final = _Kept(lambda size: encode(LogEntry(message="-" * size))[: -size or None])
_prefixes: Final = _Kept(prefix)
_last: Final = [_number(low) for low in range(128)]
_more: Final = [_number(low + 128)[:-1] for low in range(128)]
"""The first byte of a sequence from 128 on; the rest is the encoding of its other bits."""
_blocks: Final = _Kept(lambda block: _number(block)[1:])
