"""What the three journal streams share: a read of the journal becomes records on the wire.

A plain client gets its records and nothing else. Control records (heartbeats, gaps) exist only for
clients that asked for them in StreamOptions.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from streamkit.codec import frame
from streamkit.errors import ConnectError, StreamGapError
from streamkit.generated.streamservice import (
    Control,
    Gap,
    Heartbeat,
    JobProgress,
    LogEntry,
    StreamOptions,
    Update,
)
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.handlers.frames import frames_of
from streamkit.handlers.validation import QUICKEST_HEARTBEAT, seconds
from streamkit.journal import RowItem, StoredItems, joined_frames
from streamkit.journal.base import Batch, Entry, Journal, Record, Selector, Start, Stream
from streamkit.transport import Framed, context

__all__ = ["JournalStreams"]

"""Seconds; a request for more frequent ones gets this."""


class JournalStreams:
    """Holds the journal and reads it for one call. Cooperative: passes other keywords on."""

    def __init__(self, *, journal: Journal, **others: Any) -> None:
        super().__init__(**others)
        self._journal = journal

    async def _batches(
        self, selector: Selector, start: Start, *, follow: bool, options: StreamOptions
    ) -> AsyncGenerator[Batch]:
        """The journal's batches for this call; the first comes at once and may be empty.

        The position that the stream starts from has then been sent as initial metadata. A
        position older than what is kept ends the call with OUT_OF_RANGE and what there is.
        """
        heartbeat = seconds(options.heartbeat, "options.heartbeat")
        batches = self._journal.read(
            selector,
            start,
            follow=follow,
            heartbeat=max(heartbeat, QUICKEST_HEARTBEAT) if heartbeat else None,
            latest=options.latest,
            tell_loss=options.gaps,
        )
        call = context()
        call.finite = not follow
        started = False
        try:
            async with aclosing(batches):
                async for batch in batches:
                    if not started:
                        started = True
                        epoch, sequence = batch.position
                        call.set_initial_metadata(
                            {"streamkit-epoch": epoch, "streamkit-position": str(sequence)}
                        )
                        await call.send_initial_metadata()
                    yield batch
                    call.place = (selector.stream.value, *batch.position)
            if follow:
                # A live stream has no end of its own; OK would say that there is no more.
                raise ConnectError("the journal was closed", hint="Resume in a moment.")
        except StreamGapError as error:
            call.set_trailing_metadata(
                {"streamkit-oldest": str(error.oldest), "streamkit-newest": str(error.newest)}
            )
            raise

    async def _records(
        self,
        selector: Selector,
        start: Start,
        *,
        follow: bool,
        options: StreamOptions,
        record: Callable[..., Record],
    ) -> AsyncGenerator[Framed]:
        """The call's records, framed; `record` makes the message that carries a control."""
        first = True
        batches = self._batches(selector, start, follow=follow, options=options)
        async with aclosing(batches):
            async for batch in batches:
                control = control_of(batch, quiet=first)
                first = False
                if control is not None:
                    yield Framed(frame(record(control=control)), 1)
                if batch.entries:
                    yield framed(batch, selector.stream)


def control_of(batch: Batch, *, quiet: bool = False) -> Control | None:
    """The control record that goes before the batch's entries; `quiet` gives no heartbeat."""
    if batch.loss is not None:
        return Control(gap=Gap(batch.loss.first, batch.loss.last, reason="removed by retention"))
    if batch.entries or quiet:
        return None
    return Control(heartbeat=Heartbeat(WirePosition(*batch.position)))


def framed(batch: Batch, stream: Stream) -> Framed:
    """All entries in one piece; the bytes are shared with the other readers of the same keys."""
    entries = batch.entries
    if batch.skipped:
        skipped = batch.skipped
        parts = [_frame_with_count(entry, skipped.get(entry.key, 0)) for entry in entries]
        return Framed(b"".join(parts), len(parts))
    if isinstance(entries, StoredItems):
        frames = frames_of(stream, entries.sequences, entries.columns)
        return Framed(b"".join(frames), len(frames))
    if len(entries) > 1 and entries[-1].frame is None:
        _frame_rows(stream, entries)
    return Framed(joined_frames(batch, frame), len(entries))


def _frame_rows(stream: Stream, entries: Sequence[Entry]) -> None:
    """Make the frames that are missing, together and without the messages."""
    bare = [entry for entry in entries if entry.frame is None and isinstance(entry, RowItem)]
    found = StoredItems.of_rows(stream, [entry.row for entry in bare])
    for entry, made in zip(bare, frames_of(stream, found.sequences, found.columns), strict=True):
        entry.frame = made


def _frame_with_count(entry: Entry, skipped: int) -> bytes:
    message = entry.message
    if not skipped or isinstance(message, JobProgress):
        if entry.frame is None:
            entry.frame = frame(message)
        return entry.frame
    counted: Update | LogEntry = copy.copy(message)
    counted.skipped = skipped
    return frame(counted)
