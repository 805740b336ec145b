"""Publisher and LogWriter: records written in order through an outage, acknowledged or counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Self

from streamkit import tracing
from streamkit.client.writing.pump import Pump
from streamkit.client.writing.text import clean, clean_map, message_text
from streamkit.errors import ConnectError, InvalidArgumentError, StreamkitError
from streamkit.generated.streamservice import LogEntry, Update

__all__ = ["LogWriter", "OnDrop", "Publisher"]

OnDrop = Callable[[int, StreamkitError], object]
"""Told how many records were lost, and why."""

_DRAIN_AFTER_ERROR = 2.0
"""Seconds that a block which failed waits for what was written before."""


class _Writer:
    """The part that both have: a pump, its counters, its end."""

    def __init__(self, pump: Pump, drain_timeout: float | None) -> None:
        self.pump = pump
        """Not for users."""
        self._drain_timeout = drain_timeout

    @property
    def acknowledged(self) -> int:
        """Records that are stored."""
        return self.pump.outbox.acknowledged

    @property
    def dropped(self) -> int:
        """Records that are not, and will not be: no room, refused, or given up at the end."""
        return self.pump.outbox.dropped

    @property
    def buffered(self) -> int:
        """Records on their way."""
        return len(self.pump.outbox)

    async def flush(self) -> int:
        """Wait until everything written so far is stored; return the last sequence.

        Waits as long as an outage lasts: bound it with asyncio.timeout. Raises what the server
        refused a record with, or what ended the writer.
        """
        await self.pump.settled()
        return self.pump.last_sequence

    async def close(self, drain: float | None = None) -> None:
        """Wait at most `drain` seconds for what is left, then stop. May be called twice.

        Raises ConnectError when records had to be given up.
        """
        lost = await self.pump.close(self._drain_timeout if drain is None else drain)
        if lost:
            raise ConnectError(f"{lost} records could not be delivered")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.close()
            if self.pump.failure is not None:
                raise self.pump.failure
            if self.pump.refusal is not None:
                raise self.pump.refusal
        else:
            ordinary = issubclass(exc_type, Exception)
            await self.pump.close(_DRAIN_AFTER_ERROR if ordinary else 0)


class Publisher(_Writer):
    """Publishes in order, many in flight, through an outage. Get one from `client.publisher()`.

    The buffer holds what the server has not acknowledged. Leaving the block waits for the rest.
    One event loop uses it; several tasks may.
    """

    async def send(
        self, topic: str, message: object, metadata: Mapping[str, object] | None = None
    ) -> None:
        """Hand over one message; waits only while the buffer is full.

        After cancellation the message was either taken or not. Raises InvalidArgumentError for a
        topic or message that cannot be sent, and what ended the publisher.
        """
        update, size = make_update(topic, message, metadata)
        if not self.pump.put(update, size):
            await self.pump.put_wait(update, size)

    def try_send(
        self, topic: str, message: object, metadata: Mapping[str, object] | None = None
    ) -> bool:
        """As `send`, but a full buffer drops the message, counts it and returns False."""
        update, size = make_update(topic, message, metadata)
        if self.pump.put(update, size):
            return True
        self.pump.drop()
        return False


class LogWriter(_Writer):
    """Writes one service's log through an outage. Get one from `client.log_writer()`."""

    def __init__(self, pump: Pump, drain_timeout: float | None, service: str) -> None:
        super().__init__(pump, drain_timeout)
        if not service:
            raise InvalidArgumentError("service must not be empty")
        self.service = service
        self._untold = 0

    def write(
        self,
        message: str,
        level: str = "info",
        fields: Mapping[str, object] | None = None,
        timestamp: datetime | None = None,
    ) -> bool:
        """Hand over one line; never waits and never raises on a full buffer or a lost server.

        Returns False when there was no room: the line is dropped and counted, and one line that
        says how many were lost follows as soon as there is room again.
        """
        if self.pump.ended:
            self.pump.outbox.count_drop()
            return False
        if self._untold and not self.pump.outbox.full:
            self._tell_drops()
        if self.pump.put(*self.entry(message, level, fields, timestamp)):
            return True
        self.note_drop()
        return False

    def note_drop(self) -> None:
        """Count a line that found no room."""
        self._untold += 1
        self.pump.drop()

    async def send(
        self,
        message: str,
        level: str = "info",
        fields: Mapping[str, object] | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Hand over one line; waits while the buffer is full."""
        entry, size = self.entry(message, level, fields, timestamp)
        if not self.pump.put(entry, size):
            await self.pump.put_wait(entry, size)

    async def send_request(
        self, lines: Sequence[tuple[str, str, Mapping[str, object] | None]], number: int
    ) -> None:
        """Hand over lines (message, level, fields) as one request; waits while the buffer is full.

        The number is the caller's own and must grow. A writer that repeats it later, with the same
        producer id, changes nothing if it was stored: that is how lines survive their sender.
        """
        records = [self.entry(message, level, fields, None) for message, level, fields in lines]
        await self.pump.put_request(records, number)

    def _tell_drops(self) -> None:
        text = f"{self._untold} log lines were dropped: the buffer was full"
        if self.pump.put(*self.entry(text, "warn", {"dropped": self._untold}, None)):
            self._untold = 0

    async def flush(self) -> int:
        """As for every writer; the line about dropped ones is part of it."""
        await self.pump.settled()
        if self._untold:
            self._tell_drops()
            await self.pump.settled()
        return self.pump.last_sequence

    def entry(
        self,
        message: str,
        level: str,
        fields: Mapping[str, object] | None,
        timestamp: datetime | None,
    ) -> tuple[LogEntry, int]:
        """The record of one line and about its size on the wire."""
        entry = LogEntry(
            timestamp=timestamp or datetime.now(UTC),
            level=level,
            message=clean(message),
            service=self.service,
        )
        size = len(message) + 64
        context = tracing.carrier()
        if context:
            fields = context | dict(fields or {})
        if fields:
            entry.fields = clean_map(fields)
            size += sum(len(key) + len(value) + 8 for key, value in entry.fields.items())
        return entry, size


@lru_cache(maxsize=4_096)
def check_topic(topic: str) -> str:
    """The topic, if the server will take it: one bad record would cost its whole request."""
    fault = ""
    if not topic:
        fault = "must not be empty"
    elif len(topic) > 255:
        fault = "must not be longer than 255 characters"
    elif "*" in topic or ">" in topic:
        fault = "must not contain wildcards"
    elif not topic.isprintable() or " " in topic:
        fault = "must not contain spaces or control characters"
    elif "" in topic.split("."):
        fault = "must not have an empty token between dots"
    if fault:
        raise InvalidArgumentError(f"topic {fault}")
    return topic


def make_update(
    topic: str, message: object, metadata: Mapping[str, object] | None = None
) -> tuple[Update, int]:
    """The record of a message and about its size on the wire."""
    text = message_text(message)
    # Four bytes a character at most: only what is large is measured exactly.
    size = len(text) + len(topic) + 32
    if not text.isascii() and len(text) > 65_536:
        size = len(text.encode()) + len(topic) + 32
    update = Update(topic=check_topic(topic), message=text)
    context = tracing.carrier()
    if context:
        metadata = context | dict(metadata or {})
    if metadata:
        update.metadata = clean_map(metadata)
        size += sum(len(key) + len(value) + 8 for key, value in update.metadata.items())
    return update, size
