"""The calls of one server connection: each is one task, and ends with exactly one status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from grpclib.const import Handler
from grpclib.encoding.base import CodecBase
from grpclib.protocol import AbstractHandler
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from streamkit.errors import LimitError, Status
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.http2.connection import LOG
from streamkit.transport.http2.endings import StreamLost
from streamkit.transport.http2.stream import WireStream
from streamkit.transport.server.context import Context, Next, ServerInterceptor, enter
from streamkit.transport.server.outcome import DRAINED, LATE, OK, Outcome, outcome_of
from streamkit.transport.server.request import Refusal, Request, read_request
from streamkit.transport.server.stream import ServerStream

if TYPE_CHECKING:
    from streamkit.config import TransportLimits

__all__ = ["Calls", "Service"]


class Service:
    """What all connections of a server share."""

    def __init__(
        self,
        mapping: Mapping[str, Handler],
        codec: CodecBase,
        limits: TransportLimits,
        interceptors: Sequence[ServerInterceptor],
    ) -> None:
        self.mapping = mapping
        self.codec = codec
        self.limits = limits
        self.interceptors = tuple(interceptors)
        # One thread: more of them would only take the interpreter from the loop more often.
        self.aside = ThreadPoolExecutor(1, "streamkit-decode")

    def close(self) -> None:
        """Let go of the thread. No call may be running any more."""
        self.aside.shutdown(wait=False, cancel_futures=True)


class _Call:
    """One running call: why it was asked to end, if it was."""

    __slots__ = ("stream", "task", "verdict")

    def __init__(self, stream: ServerStream[Any, Any]) -> None:
        self.stream = stream
        self.task: asyncio.Task[None] | None = None
        self.verdict: Outcome | None = None

    def end(self, verdict: Outcome | None) -> None:
        """Cancel the handler; the call ends with this status, or without for a lost one."""
        if self.verdict is None and self.task is not None and not self.task.done():
            self.verdict = verdict
            self.stream.context._cancelled = True
            self.task.cancel()


class Calls(AbstractHandler):
    """Accepts the requests of one connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._calls: dict[WireStream, _Call] = {}
        self.closing = False

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of all calls that are not over."""
        return [call.task for call in self._calls.values() if call.task is not None]

    def accept(
        self,
        stream: Any,
        headers: Headers,
        release_stream: Callable[[], None],
    ) -> None:
        """A request arrived: answer it at once or start its task."""
        service = self._service
        asked = read_request(
            headers, service.mapping, service.codec.__content_subtype__, service.limits
        )
        if isinstance(asked, Refusal):
            self._refuse(stream, asked, release_stream)
            return
        deadline = None if asked.timeout is None else time.monotonic() + asked.timeout
        call = _Call(
            ServerStream(stream, asked, codec=service.codec, aside=service.aside, deadline=deadline)
        )
        call.task = self._loop.create_task(self._serve(call, asked))
        self._calls[stream] = call
        stream.connection.h2.active = len(self._calls)

        def done(task: asyncio.Task[None]) -> None:
            # Here and not in the task: one that is cancelled before its first step runs nothing.
            self._calls.pop(stream, None)
            stream.connection.h2.active = len(self._calls)
            release_stream()
            del call.stream.context  # the pair would wait for the garbage collector
            call.task = None
            if not task.cancelled() and task.exception() is not None:
                LOG.warning("fault in a call", repr(task.exception()), task.exception())

        call.task.add_done_callback(done)

    def _refuse(self, stream: WireStream, refusal: Refusal, release: Callable[[], None]) -> None:
        if refusal.headers is None:
            stream.reset_nowait(ErrorCodes.PROTOCOL_ERROR)
            release()
            stream.connection.count_reset()
        else:
            stream.put_headers(refusal.headers, end_stream=True)
            release()

    def cancel(self, stream: Any) -> None:
        """The peer reset the stream."""
        call = self._calls.get(stream)
        if call is not None:
            call.end(None)

    def close(self) -> None:
        """The connection is lost."""
        self.closing = True
        for call in list(self._calls.values()):
            call.end(None)

    def drain(self, *, everything: bool) -> None:
        """Tell the callers of streaming replies to come back elsewhere; with `everything` also
        those that wait for one reply, or for the end of a stream that has one."""
        for call in list(self._calls.values()):
            streaming = call.stream._cardinality.server_streaming
            if everything or (streaming and not call.stream.context.finite):
                call.end(DRAINED)

    async def _serve(self, call: _Call, asked: Request) -> None:
        """Run a call's handler inside the interceptors and send its status."""
        stream = call.stream
        enter(stream.context)
        timer: asyncio.TimerHandle | None = None
        left = stream.context.time_left()
        if left is not None:
            if left <= 0:
                await self._finish(call, LATE)
                return
            context = stream.wire.connection.context
            timer = self._loop.call_later(left, call.end, LATE, context=context)
        try:
            outcome = await self._outcome(call, asked)
        finally:
            if timer is not None:
                timer.cancel()
        if outcome is not None:
            await self._finish(call, outcome)

    async def _outcome(self, call: _Call, asked: Request) -> Outcome | None:
        """Run the handler; return how the call ended, None when nobody waits for it."""
        stream = call.stream
        try:
            await self._onion(asked.handler.func, stream)(stream.context)
            if call.verdict is not None:
                return call.verdict
            if stream.ended:
                return None
            if stream.owes_reply:
                return Outcome(Status.INTERNAL, "the method sent no reply", unexpected=True)
            stream.check_single()
            return OK
        except asyncio.CancelledError:
            task = asyncio.current_task()
            asked_to = task is not None and task.cancelling() > 0
            if task is not None:
                while task.cancelling():
                    task.uncancel()  # the task goes on: it has a status to send
            if stream.wire.lost is not None:
                return None
            if call.verdict is None and asked_to:
                raise
            # Without a request to cancel, the handler awaited something that was cancelled.
            return call.verdict or Outcome(Status.INTERNAL, "internal error", unexpected=True)
        except StreamLost:
            return None
        except Exception as error:
            if stream.wire.lost is not None:
                return None
            if call.verdict is not None:
                return call.verdict
            outcome = outcome_of(error)
            if outcome.unexpected:
                LOG.warning("fault in a handler", f"{asked.path}: {error!r}", error)
            return outcome

    def _onion(self, func: Callable[[Any], Any], stream: ServerStream[Any, Any]) -> Next:
        """Return the handler wrapped in the interceptors, the first one outermost."""

        async def innermost(_: Context) -> None:
            await func(stream)

        layers: Next = innermost
        for interceptor in reversed(self._service.interceptors):
            layers = _wrap(interceptor, layers)
        return layers

    async def _finish(self, call: _Call, outcome: Outcome) -> None:
        """Send the status; what prevents it ends in a reset, never in silence."""
        stream = call.stream
        try:
            await stream.finish(outcome)
        except StreamLost:
            return
        except LimitError as error:
            # The peer takes nothing: the status needs no flow control and goes out alone.
            stream.wire.drop_pending()
            stream._send_trailing_metadata_done = False
            await stream.finish(Outcome(error.status, str(error), hasty=True))
        except asyncio.CancelledError:
            if call.verdict is None or stream.wire.lost is not None:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await stream.finish(call.verdict)
        except ProtocolError:
            stream.wire.reset_nowait(ErrorCodes.INTERNAL_ERROR)


def _wrap(interceptor: ServerInterceptor, inner: Next) -> Next:
    async def layer(ctx: Context) -> None:
        await interceptor(ctx, inner)

    return layer
