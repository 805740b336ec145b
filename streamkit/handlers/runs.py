"""Many small requests of one stream of writes, taken together: what most clients send."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from streamkit.codec import encode, frame
from streamkit.errors import StoreError, StreamkitError
from streamkit.generated.streamservice import SequenceRange, Update, WriteReply, WriteRequest
from streamkit.handlers.validation import check_updates, producer_id
from streamkit.journal.base import Journal, ProducerId
from streamkit.transport.server.context import current

__all__ = ["Part", "Replies", "Runs", "refused"]

_dictionary = object.__getattribute__


class Part(NamedTuple):
    """What a run needs of a request of updates alone."""

    updates: Sequence[Update]
    producer: ProducerId | None
    request: WriteRequest


class Runs:
    """The short way (`pipeline.Short`) of requests of updates alone, which most streams are made
    of. Belongs to one call."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._call = current()  # None: the handler is used without a server, so without a caller
        self._replies = Replies(journal.epoch)
        self._known = ""  # the producer that was checked last

    def part(self, request: WriteRequest) -> Part | None:
        """None also for a request that is refused: whoever else takes it says why."""
        own = _dictionary(request, "__dict__")  # most have these alone; a default is not made
        updates = own.get("updates")
        if updates.__class__ is not list and not isinstance(updates, list):
            return None
        if len(own) > 2 and (request.logs or request.jobs):
            return None
        if not updates:
            return None
        try:
            if self._call is not None:
                self._call.check(request)
            producer = self._producer(own.get("producer"), request)
            check_updates(updates)
        except StreamkitError:
            return None
        return Part(updates, producer, request)

    def begin(self, parts: list[Part]) -> asyncio.Future[Any] | None:
        """Store them, each all or not at all."""
        return self._journal.append_runs_soon([part[:2] for part in parts])

    def made(self, parts: list[Part], done: asyncio.Future[Any]) -> list[bytes]:
        """The replies, framed. StoreError when the store has failed: that ends the stream."""
        outcomes: list[tuple[int, int] | Exception] = done.result()
        made = []
        reply = self._replies.stored
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, tuple):
                producer = part.producer
                made.append(reply(0 if producer is None else producer.sequence, *outcome))
            elif isinstance(outcome, StreamkitError) and not isinstance(outcome, StoreError):
                made.append(refused(part.request, self._journal.epoch, outcome))
            else:
                raise outcome
        return made

    def _producer(self, given: Any, request: WriteRequest) -> ProducerId | None:
        own = None if given is None else _dictionary(given, "__dict__")
        if own is not None and own.get("id") == self._known:
            number = own.get("sequence")
            if number.__class__ is int and 0 < number < 1 << 63:
                return ProducerId(self._known, number)
        producer = producer_id(request.producer)
        if producer is not None:
            self._known = producer.id
        return producer


class Replies:
    """Replies to what was stored, framed. An encoding is that of the fields one after the other, so
    what is the same in each is encoded once; this runs for every event of most clients."""

    def __init__(self, epoch: str) -> None:
        self._epoch = encode(WriteReply(epoch=epoch))

    def stored(self, number: int, first: int, count: int) -> bytes:
        """As `frame(WriteReply(producer_sequence=number, epoch=..., updates=...))`."""
        range_ = b"".join((_FIRST, _varint(first), _COUNT, _varint(count)))
        own = _NUMBER + _varint(number) if number else b""
        body = b"".join((own, self._epoch, _UPDATES, _varint(len(range_)), range_))
        return b"".join((b"\0", len(body).to_bytes(4, "big"), body))


class _Tails(dict[int, bytes]):
    """Varints of what is left of numbers without their lowest seven bits: numbers that follow each
    other have the same."""

    def __missing__(self, number: int) -> bytes:
        if len(self) >= _KEPT:
            self.clear()
        made = self[number] = _varint(number)
        return made


def _varint(number: int) -> bytes:
    return _LAST[number] if number < 128 else _MORE[number & 127] + _tails[number >> 7]


_KEPT: Final = 4096
_LAST: Final = [bytes([low]) for low in range(128)]
_MORE: Final = [bytes([low | 128]) for low in range(128)]
_tails: Final = _Tails()
_NUMBER: Final = encode(WriteReply(producer_sequence=1))[:-1]
_UPDATES: Final = encode(WriteReply(updates=SequenceRange(1)))[:1]
_FIRST: Final = encode(SequenceRange(first=1))[:-1]
_COUNT: Final = encode(SequenceRange(count=1))[:-1]


def refused(request: WriteRequest, epoch: str, error: StreamkitError) -> bytes:
    """The reply, framed, that tells of a refusal."""
    return frame(
        WriteReply(
            producer_sequence=request.producer.sequence,
            epoch=epoch,
            code=error.status.value,
            error=error.message,
        )
    )
