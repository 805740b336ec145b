"""Running a call: its handler inside the interceptors, and exactly one status at the end.

The one place for it: every carrier hands its exchanges to `Service.start`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from betterproto.casing import safe_snake_case
from grpclib.const import Handler
from grpclib.encoding.base import CodecBase

from streamkit.config import TransportLimits
from streamkit.errors import InvalidArgumentError, LimitError, Status, StreamkitError, internal
from streamkit.offers import Offer, offer_of
from streamkit.room import Room
from streamkit.transport.grpc.deadline import Served
from streamkit.transport.log import LOG
from streamkit.transport.server.checking import Check
from streamkit.transport.server.context import Context, Next, ServerInterceptor, enter
from streamkit.transport.server.exchange import Exchange
from streamkit.transport.server.outcome import BROKEN, DRAINED, GONE, LATE, OK, Outcome, outcome_of
from streamkit.transport.server.replies import adopt
from streamkit.transport.server.stream import ServerStream

__all__ = ["Call", "Servable", "Service"]

_TRACES = logging.getLogger("streamkit.transport.handlers")
"""Where a fault's traceback goes, at the level of debugging."""
_PACKAGE = str(Path(__file__).parents[2])
_CLIENTS = tuple(str(Path(_PACKAGE, *parts)) for parts in (["client"], ["transport", "client"]))
_NO_METHOD = Outcome(Status.UNIMPLEMENTED, "no such method")


class Servable(Protocol):
    """A service: what betterproto, grpclib and google.protobuf generate, filled in."""

    def __mapping__(self) -> Mapping[str, Handler]:
        """Path -> method."""
        ...


class Service:
    """The methods of a server and what is around them, shared by all its carriers."""

    def __init__(
        self,
        handlers: Sequence[Servable],
        codec: CodecBase,
        limits: TransportLimits,
        interceptors: Sequence[ServerInterceptor] = (),
        check: Check | None = None,
        on_call: Callable[[Context], None] | None = None,
    ) -> None:
        """InvalidArgumentError when two handlers serve one method, or a method is a generator
        that would hold up all others."""
        self.codec = codec
        self.limits = limits
        self.interceptors = tuple(interceptors)
        self.check = check
        self.room = Room(limits.large_requests, sys.maxsize)
        """For unary requests that are large; who waits holds no more than a window."""
        self.on_call = on_call
        """Told of every call as it begins, before anything can refuse it."""
        self.unknown = 0
        """Calls of methods that are not there."""
        self.mapping: dict[str, Handler] = {}
        """Path -> method."""
        self.offers: dict[str, Offer] = {}
        """Path -> how else a method's replies may be read."""
        for handler in handlers:
            adopt(handler)
            for path, method in handler.__mapping__().items():
                if path in self.mapping:
                    raise InvalidArgumentError(f"{path} is served by two handlers")
                self.mapping[path] = method
                written = getattr(handler, safe_snake_case(path.rpartition("/")[2]), None)
                offer = offer_of(method.func) or offer_of(written)
                if offer is not None:
                    self.offers[path] = offer
        # One thread: more of them would only take the interpreter from the loop more often.
        self._aside = ThreadPoolExecutor(1, "streamkit-decode")

    def start(self, exchange: Exchange, on_done: Callable[[], None]) -> Call | None:
        """Run the call of an exchange in a task of its own; `on_done` once it is over.

        None when there is no such method: the status is put, `on_done` was called. The carrier
        calls `end` of what is returned when the caller goes, and `drain` when the server does.
        """
        method = self.mapping.get(exchange.method)
        if method is None:
            self.unknown += 1
            exchange.put_status(_NO_METHOD)
            on_done()
            return None
        call = Call(exchange, method, self, on_done)
        return call

    def close(self) -> None:
        """Let go of the thread. No call may be running any more."""
        self._aside.shutdown(wait=False, cancel_futures=True)


class Call:
    """One running call: why it was asked to end, if it was."""

    __slots__ = ("_context", "_exchange", "_on_done", "_served", "_stream", "_verdict", "task")

    def __init__(
        self,
        exchange: Exchange,
        method: Handler,
        service: Service,
        on_done: Callable[[], None],
    ) -> None:
        self._exchange = exchange
        self._on_done = on_done
        self._verdict: Outcome | None = None
        self._served: Served | None = None
        self._context = Context(
            exchange,
            streams_requests=method.cardinality.client_streaming,
            streams_replies=method.cardinality.server_streaming,
            end=self._end_with,
        )
        self._stream: ServerStream[Any, Any] = ServerStream(
            exchange,
            method,
            self._context,
            codec=service.codec,
            aside=service._aside,
            limits=service.limits,
            room=service.room,
            check=service.check,
        )
        if service.on_call is not None:
            service.on_call(self._context)
        run = self._run(method.func, service.interceptors)
        self.task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(run)
        """None when the call is over."""
        self.task.add_done_callback(self._done)

    def end(self, verdict: Outcome | None) -> None:
        """Cancel the handler; the call ends with this status, or without for a lost one."""
        if self._verdict is None and self.task is not None and not self.task.done():
            self._verdict = GONE if verdict is None else verdict
            self._context._cancelled = True
            self.task.cancel()

    def drain(self, *, everything: bool) -> None:
        """Tell the caller to come back elsewhere when the call is a streaming reply without an end;
        with `everything` in any case."""
        if everything or (self._context.streams_replies and not self._context.finite):
            self.end(DRAINED)

    def settle(self) -> None:
        """Give the place free, if the task is done: else that is for the next turn of the loop."""
        task = self.task
        if task is not None and task.done():
            task.remove_done_callback(self._done)
            self._done(task)

    def _end_with(self, error: StreamkitError) -> None:
        # A reader that takes nothing must not be able to put off its end.
        self.end(replace(outcome_of(error), hasty=True))

    def _done(self, task: asyncio.Task[None]) -> None:
        # Not in the task: one that is cancelled before its first step runs nothing.
        self.task = None
        if self._served is not None:
            self._served.end()
        context = self._context
        if context.outcome is None:
            context.outcome = self._verdict or GONE
        context.end = _over  # the three would wait for the garbage collector
        self._stream.leave_room()
        del self._stream
        self._on_done()
        if not task.cancelled() and task.exception() is not None:
            LOG.warning("fault in a call", repr(task.exception()), task.exception())
        observers, context._observers = context._observers, []
        for observer in observers:
            try:
                observer(context)
            except Exception as error:  # of others, and nobody is left to tell
                LOG.warning("fault in a callback", f"{context.method}: {error!r}", error)

    async def _run(
        self, func: Callable[[Any], Any], interceptors: Sequence[ServerInterceptor]
    ) -> None:
        """Run the handler inside the interceptors and send its status."""
        context = self._context
        enter(context)
        self._served = Served(context.deadline)
        timer: asyncio.TimerHandle | None = None
        left = context.time_left()
        if left is not None:
            if left <= 0:
                await self._finish(LATE)
                return
            # In a context of its own: the timer must not keep the call's.
            timer = asyncio.get_running_loop().call_later(
                left, self.end, LATE, context=contextvars.Context()
            )
        try:
            outcome = await self._outcome(func, interceptors)
        finally:
            if timer is not None:
                timer.cancel()
        if outcome is not None:
            await self._finish(outcome)

    async def _outcome(
        self, func: Callable[[Any], Any], interceptors: Sequence[ServerInterceptor]
    ) -> Outcome | None:
        """Run the handler; return how the call ended, None when nobody waits for it."""
        stream, exchange = self._stream, self._exchange
        try:
            await _onion(interceptors, func, stream)(self._context)
            if self._verdict is not None:
                return self._waited_for()
            if stream.ended:
                return None
            if stream.owes_reply:
                LOG.warning("fault in a handler", f"{exchange.method} sent no reply")
                return Outcome(Status.INTERNAL, "the method sent no reply", unexpected=True)
            stream.check_single()
            return OK
        except asyncio.CancelledError:  # raised again unless the call was given its end
            task = asyncio.current_task()
            asked_to = task is not None and task.cancelling() > 0
            if task is not None:
                while task.cancelling():
                    task.uncancel()  # the task goes on: it has a status to send
            if exchange.lost:
                return None
            if self._verdict is not None:
                return self._waited_for()
            if asked_to:
                raise
            # The handler awaited something that was cancelled.
            LOG.warning("fault in a handler", f"{exchange.method} was cancelled by itself")
            return BROKEN
        except Exception as error:  # every call ends with one status
            if exchange.lost:
                return None
            if self._verdict is not None:
                return self._waited_for()
            return self._outcome_of(error)

    def _outcome_of(self, error: Exception) -> Outcome:
        """The status of an error; a line in the log when the handler is at fault."""
        if isinstance(error, StreamkitError) and error.internal is None and _is_clients(error):
            internal(error)
        try:
            outcome = outcome_of(error)
            fault = error
        except StreamkitError as unfit:  # its details cannot be sent
            fault, outcome = unfit, BROKEN
        if outcome.unexpected:
            place = place_of(error)
            text = f"{self._exchange.method} at {place}: {fault!r}"
            LOG.warning("fault in a handler", text, kind=place)
            _TRACES.debug("%s", text, exc_info=error)
        return outcome

    def _waited_for(self) -> Outcome | None:
        return None if self._verdict is GONE else self._verdict

    async def _finish(self, outcome: Outcome) -> None:
        """Send the status; what prevents it is said in another one, or nobody is there."""
        stream, exchange = self._stream, self._exchange
        try:
            await stream.finish(outcome)
        except LimitError as error:
            # The peer takes nothing: the status needs no flow control and goes out alone.
            await stream.finish_alone(Outcome(error.status, str(error), hasty=True))
        except asyncio.CancelledError:  # raised again unless the call was given its end
            if self._verdict is None or self._verdict is GONE or exchange.lost:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await stream.finish(self._verdict)
        except Exception:  # of a peer that is gone: there is nobody to tell
            if not exchange.lost:
                raise


def place_of(error: BaseException) -> str:
    """Return "file:line" of the innermost code that is not streamkit's, else of streamkit's."""
    place: str | None = getattr(error, "place", None)
    if place is not None:
        return place
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    found = (theirs or frames)[-1:]
    return "".join(f"{frame.filename}:{frame.lineno}" for frame in found) or "nowhere"


def _is_clients(error: BaseException) -> bool:
    """Whether code of a client has raised it: it tells of a call that was made here."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_CLIENTS)


def _over(error: StreamkitError) -> None:
    """`Context.end` of a call that is over."""


def _onion(
    interceptors: Sequence[ServerInterceptor],
    func: Callable[[Any], Awaitable[None]],
    stream: ServerStream[Any, Any],
) -> Next:
    """Return the handler wrapped in the interceptors, the first one outermost."""

    def innermost(_: Context) -> Awaitable[None]:
        return func(stream)  # without a coroutine of its own around the handler's

    layers: Next = innermost
    for interceptor in reversed(interceptors):
        layers = _wrap(interceptor, layers)
    return layers


def _wrap(interceptor: ServerInterceptor, inner: Next) -> Next:
    return lambda ctx: interceptor(ctx, inner)
