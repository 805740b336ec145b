"""Keeps an outbox moving: one pipelined stream to the server, opened again when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Never, TypeAlias

from streamkit.client.attempts import Attempts, Reconnect
from streamkit.client.events import ClientEvent, tell
from streamkit.client.retry import is_retryable
from streamkit.client.writing.outbox import Outbox, Record
from streamkit.errors import (
    ConnectError,
    InternalError,
    LimitError,
    Status,
    StreamkitError,
    error_from_status,
)
from streamkit.generated.streamservice import WriteReply, WriteRequest

if TYPE_CHECKING:
    from streamkit.transport import Channel, ClientCall

__all__ = ["Pump"]

WriteCall: TypeAlias = "ClientCall[WriteRequest, WriteReply]"

PATH = "/streamservice.ProducerService/Write"

_log = logging.getLogger(__name__)


class Pump:
    """Sends what the outbox holds and settles it with the replies.

    Owns one task from the first record to `close()`. It connects only when there is something to
    send, comes back after a break with everything unanswered, and ends early on an error that a
    repetition cannot help: `failure` is then set and whatever waits raises it.
    """

    def __init__(
        self,
        channel: Channel,
        outbox: Outbox,
        reconnect: Reconnect,
        *,
        name: str,
        answer_timeout: float,
        metadata: dict[str, str] | None = None,
        on_drop: Callable[[int, StreamkitError], object] | None = None,
    ) -> None:
        self.outbox = outbox
        self.failure: StreamkitError | None = None
        self.refusal: StreamkitError | None = None
        """The first refusal that nobody was told of yet."""
        self.last_sequence = 0
        """The sequence that the journal gave to the last acknowledged record."""
        self.online = False
        """Whether the present connection has been answered."""
        self._channel = channel
        self._on_event = reconnect.on_event
        self._attempts = Attempts(reconnect, name, channel.closing, tells_loss=True, patient=True)
        self._name = name
        self._answer_timeout = answer_timeout
        self._metadata = metadata
        self.on_reply: Callable[[WriteReply], object] | None = None
        """Called with the reply to every request that was stored."""
        self.on_closed: Callable[[], object] | None = None
        self._on_drop = on_drop
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._sendable = asyncio.Event()
        self._room = asyncio.Event()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._hurried = asyncio.Event()
        self._closed = False
        self._overflow = 0
        # A server that is back must not miss the last records of a program for a delay's sake.
        self._attempts.hurried = self._hurried
        self._attempts.needed = lambda: len(outbox) > 0

    # ---- for producers ----

    def put(self, record: Record, size: int) -> bool:
        """Take a record in without waiting; False if there is no room. Raises `failure`."""
        self._check()
        if not self.outbox.offer(record, size):
            return False
        self._begin()
        return True

    async def put_request(self, records: Sequence[tuple[Record, int]], number: int) -> None:
        """Take records in as one request with that number, waiting for room."""
        while not self.try_request(records, number):
            await self.room()

    def try_request(self, records: Sequence[tuple[Record, int]], number: int) -> bool:
        """As `put_request` without waiting: False if there is no room. Raises `failure`."""
        self._check()
        if not self.outbox.offer_request(records, number):
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        if not self._work.is_set():
            self._work.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name=f"streamkit {self._name}")
        if self._overflow:
            self._tell(f"{self._name}: {self._overflow} records were dropped")
            self._overflow = 0
        self._sendable.set()

    def offer(self, record: Record, size: int) -> bool:
        """As `put`, but never raises: a pump that has ended takes nothing."""
        return not self.ended and self.put(record, size)

    async def put_wait(
        self, record: Record, size: int, *, done: Callable[[], object] | None = None
    ) -> None:
        """Take a record in, waiting for room; `done` is called in the moment that it is in."""
        while not self.put(record, size):
            await self.room()
        if done is not None:
            done()

    @property
    def ended(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closed or self.failure is not None

    async def room(self) -> None:
        """Wait until something was settled, or the pump ended."""
        self._room.clear()
        await self._room.wait()

    def check(self, size: int) -> None:
        """Raise what `put` would raise for a record of this size, without putting one."""
        self._check()
        self.outbox.check(size)

    def drop(self) -> None:
        """Count one record that found no room. The first and the last of a row make an event."""
        self.outbox.count_drop()
        if not self._overflow:
            self._tell(f"{self._name}: the buffer is full, records are being dropped")
        self._overflow += 1
        if self._on_drop is not None:
            self._on_drop(1, LimitError("the buffer is full"))

    async def settled(self) -> None:
        """Wait until everything accepted so far is settled. Raises a failure or refusal."""
        target = self.outbox.accepted
        if self.outbox.settled < target:
            self._check()
            self._hurried.set()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((target, future))
            await future
        self._check()
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal

    async def close(self, drain: float | None) -> int:
        """Wait at most `drain` seconds (None: as long as it takes) for the rest, then stop.

        Returns how many records were given up; they count as dropped.
        """
        if self._closed:
            return 0
        try:
            if self.failure is None and drain != 0:
                async with asyncio.timeout(drain):
                    await self._drained()
        except TimeoutError:
            pass  # the count that is returned says so
        finally:
            self._closed = True
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            lost = self.outbox.abandon()
            self._wake_waiters()
            if self.on_closed is not None:
                self.on_closed()
        if lost:
            self._tell_drop(lost, ConnectError(f"{lost} records were not sent"))
        return lost

    async def _drained(self) -> None:
        self._hurried.set()
        while self.outbox.settled < self.outbox.accepted and self.failure is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((self.outbox.accepted, future))
            await asyncio.wait([future])

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._closed:
            raise ConnectError(f"the {self._name} is closed")

    # ---- the task ----

    async def _run(self) -> None:
        try:
            await self._attempts.run(self._converse)
        except StreamkitError as error:
            self._fail(error)
        except Exception as error:  # whoever waits for a reply must hear of it
            _log.exception("the %s failed", self._name)
            self._fail(InternalError(f"the {self._name} failed: {error!r}"))

    async def _converse(self) -> Never:
        """One connection, until it breaks; made when there is something to send."""
        await self._work.wait()
        self.outbox.rewind()
        stream = self._channel.stream(PATH, WriteRequest, WriteReply, metadata=self._metadata)
        async with stream as call:
            patience = asyncio.timeout(None)
            listening = True
            sender = asyncio.create_task(self._send(call, patience))

            def expire(_: asyncio.Task[None]) -> None:
                # Scheduled when the sender ended; the listening may have ended in the same turn.
                if listening and not sender.cancelled():
                    _expire(patience)

            sender.add_done_callback(expire)
            try:
                try:
                    async with patience:
                        while True:
                            self._settle(await self._replies(call))
                            self._attempts.progress()
                            self._be_patient(patience)
                finally:
                    listening = False
            except TimeoutError:
                if sender.done() and (fault := sender.exception()) is not None:
                    raise fault from None
                await self._channel.reset()  # a dead connection, for everybody on it
                raise ConnectError(f"no answer for {self._answer_timeout:g} s") from None
            except StreamkitError:
                self._attempts.trailers = call.trailing_metadata
                raise
            finally:
                self.online = False
                sender.cancel()
                await asyncio.wait([sender])
                if not sender.cancelled():
                    sender.exception()  # seen: what broke the sending broke the receiving too

    async def _replies(self, call: WriteCall) -> Sequence[WriteReply]:
        replies = await call.receive()
        if not replies:
            raise ConnectError("the server ended the stream")
        if not self.online:
            self.online = True
            self._attempts.opened()
        return replies

    def _be_patient(self, patience: asyncio.Timeout) -> None:
        """While something is unanswered the server must not be silent for long."""
        wait = self.outbox.unanswered > 0
        now = asyncio.get_running_loop().time()
        patience.reschedule(now + self._answer_timeout if wait else None)

    async def _send(self, call: WriteCall, patience: asyncio.Timeout) -> None:
        outbox = self.outbox
        while True:
            self._sendable.clear()
            while (sealed := outbox.next_request()) is not None:
                if patience.when() is None:
                    self._be_patient(patience)
                await call.send(sealed.request)
            await self._sendable.wait()

    def _settle(self, replies: Sequence[WriteReply]) -> None:
        for reply in replies:
            if reply.code and is_retryable(error := _refusal(reply)):
                raise error  # the store is away: the same request again, later
            sealed = self.outbox.answer(reply)
            if sealed is None:
                continue
            if reply.code:
                self.refusal = self.refusal or error
                self._tell_drop(sealed.records, error)
                continue
            for stored in (reply.updates, reply.logs):
                if stored.count:
                    self.last_sequence = stored.first + stored.count - 1
            if self.on_reply is not None:
                self.on_reply(reply)
        if not len(self.outbox):
            self._work.clear()
        self._sendable.set()
        self._room.set()
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        waiters = self._waiters
        while waiters and (self.ended or waiters[0][0] <= self.outbox.settled):
            _, future = waiters.popleft()
            if not future.done():
                future.set_result(None)

    # ---- trouble ----

    def _fail(self, error: StreamkitError) -> None:
        self.failure = error
        lost = self.outbox.abandon()
        self._room.set()
        self._wake_waiters()
        if lost:
            self._tell_drop(lost, error)

    def _tell(self, detail: str, error: StreamkitError | None = None) -> None:
        tell(self._on_event, ClientEvent("dropped", detail, error=error))

    def _tell_drop(self, records: int, error: StreamkitError) -> None:
        self._tell(f"{self._name}: {records} records dropped: {error}", error)
        if self._on_drop is not None:
            self._on_drop(records, error)


def _expire(patience: asyncio.Timeout) -> None:
    """End the waiting for replies: nothing more is being sent."""
    when = patience.when()
    now = asyncio.get_running_loop().time()
    if when is None or when > now:
        patience.reschedule(now)


def _refusal(reply: WriteReply) -> StreamkitError:
    try:
        status = Status(reply.code)
    except ValueError:
        status = Status.UNKNOWN
    return error_from_status(status, reply.error)
