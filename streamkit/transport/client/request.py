"""One request of a client: what is sent, what came back, how it ended. Callbacks, no tasks.

The request outlives an attempt that the server refused unprocessed: it is sent again on another
connection. Waiting is done on futures that belong to one waiter each, so nothing here ever cancels
a task: a deadline, a lost connection and `task.cancel()` stay apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from streamkit.errors import CallCancelledError, InternalError, StreamkitError, internal
from streamkit.transport.client.service_config import Retrying
from streamkit.transport.client.status import (
    lost_error,
    reset_error,
    response_error,
    status_error,
    unfinished_error,
)
from streamkit.transport.grpc.compression import inflater
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.http2.blocks import Fields
from streamkit.transport.http2.endings import StreamLost

__all__ = ["Attempt", "ClientStream"]

REPLAY_LIMIT = 256 * 1024
"""Bytes of a request kept for a transparent retry; a longer one is not retried."""
RETRY_LIMIT = 5
"""Transparent retries of one call."""


class Attempt(Protocol):
    """A request on its way: what carries it, and reports to its ClientStream (`on_headers`,
    `on_trailers`, `on_ended`, `on_lost`)."""

    messages_in: ReceiveBuffer
    """What was received."""

    @property
    def pending_size(self) -> int:
        """Bytes put and not yet sent."""
        ...

    def leave(self) -> None:
        """End the attempt: what is open of it is reset, its place is free. Idempotent."""
        ...

    def open(self, headers: Headers, end: bool) -> None:
        """Send the request's headers, together with what is put in this turn; with `end` nothing
        follows. StreamkitError when they cannot be sent."""
        ...

    def put(self, data: bytes) -> None:
        """Add framed messages."""
        ...

    def put_whole(self, data: bytes) -> bool:
        """Right after `open`: add all that the request has, which is its end; False: it is too
        much for one frame, or for now."""
        ...

    def put_end(self) -> None:
        """After everything put so far, end the request."""
        ...

    def take(self) -> list[bytes]:
        """The whole messages that are here."""
        ...

    def changed(self) -> Awaitable[None]:
        """Wait for messages, or until the attempt is over."""
        ...

    async def sent_some(self) -> None:
        """Wait for the server to take some of what is pending."""
        ...


class ClientStream:
    """The state of one request, from queued through open to done.

    `submit` is called with the stream when it needs a connection: at first, and again when a server
    has refused it. `headers` makes the request headers for an authority, with the time left.
    """

    def __init__(
        self,
        headers: Callable[[str], Headers],
        submit: Callable[[ClientStream], None],
        *,
        subtype: str,
        max_message: int,
        send_buffer: int,
        in_place: bool = False,
        retrying: Retrying | None = None,
    ) -> None:
        self.initial: Headers | None = None
        """The response's headers; empty when it was nothing but trailers."""
        self.trailers: Headers | None = None
        self.error: StreamkitError | None = None
        self.done = False
        """Whether the call has its outcome: `error`, or None for OK."""
        self.on_done: Callable[[], None] | None = None
        self.in_place = in_place
        """Whether messages are to be received where they stay."""
        self.max_message = max_message
        self._attempt: Attempt | None = None
        self._inbox: ReceiveBuffer | None = None
        self._headers = headers
        self._submit = submit
        self._subtype = subtype
        self._send_buffer = send_buffer
        self._loop = asyncio.get_running_loop()
        self._waiters: set[asyncio.Future[None]] = set()
        self._request: list[bytes] | None = []
        self._request_size = 0
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._ending = False
        self._retries = 0
        self._retrying = retrying
        self._again: asyncio.TimerHandle | None = None  # until the call is tried again
        self._settled = False  # what an attempt reports is of one that is over for this call

    # The call's side

    @property
    def started(self) -> bool:
        """Whether the request is on a connection."""
        return self._attempt is not None

    @property
    def ready(self) -> bool:
        """Whether `take` has something to say: messages, or what is wrong with them."""
        inbox = self._inbox
        return inbox is not None and inbox.size > 0 and inbox.ready

    @property
    def congested(self) -> bool:
        """Whether the writer should wait."""
        if self.done:
            return False
        attempt = self._attempt
        pending = self._unsent_size if attempt is None else attempt.pending_size
        return pending >= self._send_buffer

    async def wait(self) -> None:
        """Wait until something has changed."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def wait_for_messages(self) -> Awaitable[None]:
        """As `wait`; makes room for the rest of a message that is larger than the window."""
        attempt = self._attempt
        return self.wait() if attempt is None else attempt.changed()

    async def wait_for_room(self) -> None:
        """As `wait`, for a writer: until some of what is queued has been sent."""
        if self._attempt is None:
            await self.wait()
        else:
            await self._attempt.sent_some()

    def write(self, data: bytes) -> None:
        """Queue bytes; those of one turn of the event loop leave together."""
        if self._request is not None:
            self._request_size += len(data)
            if self._request_size > REPLAY_LIMIT:
                self._request = None
            else:
                self._request.append(data)
        if self._attempt is not None:
            self._attempt.put(data)
        else:
            self._unsent.append(data)
            self._unsent_size += len(data)

    def end(self) -> None:
        """Nothing more will be written."""
        if not self._ending:
            self._ending = True
            if self._attempt is not None:
                self._attempt.put_end()

    def take(self) -> list[bytes]:
        """Give out the messages that are complete; what is read opens the window.

        Raises what is wrong with the first message, after the good ones have been given out.
        """
        inbox, attempt = self._inbox, self._attempt
        assert inbox is not None
        if attempt is not None:
            return attempt.take()
        return inbox.take()[0]

    def fail(self, error: StreamkitError) -> None:
        """End the call on this side: what is unread is dropped, the server is told."""
        if not self.done:
            self._inbox = None
            self._finish(error)
        self._leave()

    def close(self) -> None:
        """Leave the call: what is still open of it is cancelled."""
        if not self.done:
            self._finish(CallCancelledError("the call was left"))
        self._leave()

    # The pool's side

    def refuse(self, error: StreamkitError) -> None:
        """There is no connection for the stream: it fails, or is tried again later."""
        if self.done or not self._try_again(error, ()):
            self.fail(error)

    def start(self, attempt: Attempt, authority: str) -> None:
        """Send the request by an attempt that has room for it, to whom it concerns there."""
        bare = self._ending and not self._unsent
        try:
            attempt.open(self._headers(authority), bare)
        except StreamkitError as error:
            self._finish(error)
            return
        except Exception as fault:  # of this call alone: others wait for their turn
            self._finish(InternalError(f"the call cannot be sent: {fault!r}"))
            return
        self._attempt = attempt
        self._inbox = attempt.messages_in
        unsent = self._unsent
        if not (self._ending and len(unsent) == 1 and attempt.put_whole(unsent[0])):
            for data in unsent:
                attempt.put(data)
            if self._ending and not bare:
                attempt.put_end()
        unsent.clear()
        self._unsent_size = 0
        self.wake()

    # The connection's side

    def on_headers(self, headers: Headers) -> None:
        """The response has begun: from here on the call is not repeated, unless it is nothing but
        a status."""
        if isinstance(headers, Fields) and "plain" in headers.made:
            self._request = None
            self.initial = headers
            return
        fields = dict(headers)
        error = response_error(fields, self._subtype)
        if error is None and self._inbox is not None:
            try:
                encoding = fields.get("grpc-encoding", "")
                self._inbox.inflate = inflater(encoding, self.max_message)
            except StreamkitError as unknown:
                error = unknown
        if error is not None:
            attempt = self._attempt
            if self._try_again(error, headers):
                if attempt is not None:
                    self._loop.call_soon(attempt.leave)
                return
            self.trailers = headers
            self.fail(error)
            return
        if "grpc-status" not in fields:
            self._request = None
            plain = self._inbox is not None and self._inbox.inflate is None
            if plain and isinstance(headers, Fields) and headers.kept:
                headers.made["plain"] = True
        self.initial = headers

    def on_trailers(self, headers: Headers) -> None:
        """The status has come, in trailers or in a response that is nothing else."""
        if self.trailers is None and not self._settled:
            self.trailers = headers

    def on_ended(self) -> None:
        """The server has ended the stream: the outcome is known."""
        if self._settled:
            return
        initial = self.initial or []
        if self.trailers is None and "grpc-status" in dict(initial):
            self.trailers, self.initial = initial, []
        if self.trailers is None:
            self._finish(unfinished_error("the response ended without a status"))
        else:
            error = self._status(self.trailers)
            if error is None or not self._try_again(error, self.trailers):
                self._finish(error)

    @staticmethod
    def _status(trailers: Headers) -> StreamkitError | None:
        if not isinstance(trailers, Fields):
            return status_error(trailers)
        if "ok" in trailers.made:
            return None
        error = status_error(trailers)
        if error is None and trailers.kept:
            trailers.made["ok"] = True
        return error

    def on_lost(self, lost: StreamLost) -> None:
        """The attempt is over without a status: reset, refused, or its connection went."""
        if self._settled:
            return
        self._attempt = None
        if lost.refused and self._retry():
            return
        error = lost_error(lost.reason) if lost.code is None else reset_error(lost.code)
        if not self._try_again(error, ()):
            self._finish(error)

    def wake(self) -> None:
        """Something has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Inside

    def _try_again(self, error: StreamkitError, trailers: Iterable[tuple[str, str]]) -> bool:
        """Try a failed call again after a while, where its channel's service config says so."""
        if self._retrying is None or self._request is None:
            return False
        delay = self._retrying.delay(error, dict(trailers).get("grpc-retry-pushback-ms"))
        if delay is None:
            return False
        self._attempt = self._inbox = self.initial = self.trailers = None
        self._unsent = list(self._request)
        self._unsent_size = self._request_size
        self._again = self._loop.call_later(delay, self._submit_again)
        self._settled = True
        return True

    def _retry(self) -> bool:
        if self._request is None or self._retries >= RETRY_LIMIT:
            return False
        self._retries += 1
        self._unsent = list(self._request)
        self._unsent_size = self._request_size
        # Not from inside the event that refused it: the connection is not done with that yet.
        self._loop.call_soon(self._submit_again)
        return True

    def _submit_again(self) -> None:
        self._again = None
        if not self.done:
            self._settled = False
            self._submit(self)

    def _finish(self, error: StreamkitError | None) -> None:
        self.error = None if error is None else internal(error)
        self.done = self._settled = True
        self._request = None
        self._headers = _none  # the call's, which would wait with this for the garbage collector
        if self._again is not None:
            self._again.cancel()
        if error is None and self._retrying is not None:
            self._retrying.succeeded()
        self._unsent.clear()
        self._unsent_size = 0
        if self.on_done is not None:
            self.on_done()
        self.wake()

    def _leave(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.leave()


def _none(authority: str) -> Headers:
    """The headers of a call that is over."""
    return []
