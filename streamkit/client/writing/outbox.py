"""Records on their way to the server: a bounded buffer that can be sent again. Pure: no I/O.

Records are packed into requests when there is room to send one. A packed request keeps its number
and its content until it is answered, so sending it again after a broken connection changes nothing
on the server that stored it already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from streamkit.errors import InvalidArgumentError, LimitError
from streamkit.generated.streamservice import (
    JobReport,
    LogEntry,
    Producer,
    Update,
    WriteReply,
    WriteRequest,
)

__all__ = ["Outbox", "Record", "Sealed"]

Record = Update | LogEntry | JobReport

KIB = 1024
MIB = 1024 * KIB


@dataclass(slots=True)
class Sealed:
    """A request as it goes on the wire, once or more often."""

    request: WriteRequest
    number: int
    records: int
    size: int


class Outbox:
    """A queue of records, of which the first part is packed into requests.

    Bounded by `records` and `size` (bytes), counting what waits and what is not yet acknowledged.
    Packs at most `batch_records` and about `batch_size` bytes into one request, and has at most
    `window` requests unanswered.
    """

    def __init__(
        self,
        producer_id: str,
        *,
        records: int = 10_000,
        size: int = 32 * MIB,
        batch_records: int = 500,
        batch_size: int = 256 * KIB,
        window: int = 32,
        largest: int = 4 * MIB - 4 * KIB,
    ) -> None:
        if records < 1:
            raise InvalidArgumentError(f"buffer must be positive, not {records}")
        self.producer_id = producer_id
        self._max_records = records
        self._max_size = size
        self._batch_records = batch_records
        self._batch_size = batch_size
        self._window = window
        self._largest = largest
        self._waiting: deque[tuple[Record, int]] = deque()
        self._sealed: deque[Sealed] = deque()
        self._sent = 0
        """Requests of `_sealed`, from its left, that went out on the present connection."""
        self._number = 0
        self._size = 0
        self._held = 0
        self.accepted = 0
        self.acknowledged = 0
        self.refused = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Records held: waiting or unanswered."""
        return self._held

    def __repr__(self) -> str:
        return (
            f"<Outbox waiting={len(self._waiting)} unanswered={len(self._sealed)} "
            f"acknowledged={self.acknowledged} dropped={self.dropped}>"
        )

    @property
    def settled(self) -> int:
        """Accepted records whose fate is known; they settle in the order of acceptance."""
        return self.acknowledged + self.refused

    @property
    def waiting(self) -> int:
        """Records that are in no request yet."""
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """Requests that went out on the present connection and have no reply yet."""
        return self._sent

    @property
    def full(self) -> bool:
        return self._held >= self._max_records or self._size >= self._max_size

    def offer(self, record: Record, size: int) -> bool:
        """Take a record in, or return False because there is no room.

        `size` is about what it takes on the wire. Raises LimitError for one that no server takes.
        """
        if size > self._largest:
            self.check(size)
        if self._held >= self._max_records or self._size >= self._max_size:
            return False
        self._waiting.append((record, size))
        self._held += 1
        self._size += size
        self.accepted += 1
        return True

    def offer_request(self, records: Sequence[tuple[Record, int]], number: int) -> bool:
        """As `offer`, for records that are one request, numbered by whoever counts them.

        Numbers must grow. Not to be mixed with `offer`: InvalidArgumentError.
        """
        size = sum(size for _, size in records)
        self.check(size)
        if self._waiting or number <= self._number:
            raise InvalidArgumentError(f"request {number} cannot follow {self._number}")
        if len(self._sealed) >= self._window or (self._held and self.full):
            return False
        self._number = number
        self._sealed.append(self._request([record for record, _ in records], size))
        self._held += len(records)
        self._size += size
        self.accepted += len(records)
        return True

    def check(self, size: int) -> None:
        """Raise LimitError if a record of this size is too large for any server."""
        if size > self._largest:
            raise LimitError(f"a record of {size} bytes is too large; {self._largest} are allowed")

    def next_request(self) -> Sealed | None:
        """The next request to send, or None: nothing to send, or the window is full."""
        if self._sent < len(self._sealed):
            again = self._sealed[self._sent]
            self._sent += 1
            return again
        if not self._waiting or self._sent >= self._window:
            return None
        sealed = self._seal()
        self._sealed.append(sealed)
        self._sent += 1
        return sealed

    def answer(self, reply: WriteReply) -> Sealed | None:
        """Settle the request that a reply is for; None if it was settled before.

        Replies come in the order of the requests. A `code` other than 0 counts as refused.
        """
        if not self._sealed or reply.producer_sequence < self._sealed[0].number:
            return None
        if not self._sent or reply.producer_sequence != self._sealed[0].number:
            raise InvalidArgumentError(
                f"reply {reply.producer_sequence} came instead of {self._sealed[0].number}"
            )
        sealed = self._sealed.popleft()
        self._sent -= 1
        self._held -= sealed.records
        self._size -= sealed.size
        if reply.code:
            self.refused += sealed.records
            self.dropped += sealed.records
        else:
            self.acknowledged += sealed.records
        return sealed

    def unsettled(self) -> list[WriteRequest]:
        """The requests that have no answer. Records that are in no request are not among them."""
        return [sealed.request for sealed in self._sealed]

    def rewind(self) -> None:
        """The connection is gone: everything that is unanswered goes out again, in order."""
        self._sent = 0

    def count_drop(self, records: int = 1) -> None:
        """Note records that were never accepted."""
        self.dropped += records

    def forget(self) -> None:
        """Let go of what is held without counting it: somebody else has it now."""
        self._waiting.clear()
        self._sealed.clear()
        self.accepted -= self._held
        self._sent = self._held = self._size = 0

    def abandon(self) -> int:
        """Give up what is held; return how many records that were. They count as dropped."""
        lost = self._held
        self._waiting.clear()
        self._sealed.clear()
        self._sent = self._held = self._size = 0
        self.dropped += lost
        self.refused += lost
        return lost

    def _seal(self) -> Sealed:
        waiting = self._waiting
        records: list[Record] = []
        total = 0
        while waiting and len(records) < self._batch_records:
            record, size = waiting[0]
            if records and total + size > self._batch_size:
                break
            waiting.popleft()
            records.append(record)
            total += size
        self._number += 1
        return self._request(records, total)

    def _request(self, records: list[Record], size: int) -> Sealed:
        updates: list[Update] = []
        logs: list[LogEntry] = []
        jobs: list[JobReport] = []
        for record in records:
            if isinstance(record, Update):
                updates.append(record)
            elif isinstance(record, LogEntry):
                logs.append(record)
            else:
                jobs.append(record)
        request = WriteRequest(
            producer=Producer(id=self.producer_id, sequence=self._number),
            updates=updates,
            logs=logs,
            jobs=jobs,
        )
        return Sealed(request, self._number, len(records), size)
