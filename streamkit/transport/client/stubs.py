"""The client half of generated stubs, on channels of ours.

betterproto's own waits for ever when a request iterator raises, loses a reply that comes before
the last request, leaves its sending task behind, and cannot have a method called `metadata`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from betterproto.grpc import grpclib_client
from grpclib.metadata import Deadline

from streamkit.errors import CallCancelledError, StreamkitError
from streamkit.transport.client.call import ClientCall
from streamkit.transport.grpc.deadline import checked_seconds

if TYPE_CHECKING:
    from betterproto.grpc.grpclib_client import MetadataLike
    from typing_extensions import TypeVar as TypeVarWithDefault

    Twin = TypeVarWithDefault("Twin", default=Any)
else:
    Twin = TypeVar("Twin")

__all__ = ["Replies", "ServiceStub", "take_over"]

Reply = TypeVar("Reply")
Messages = Iterable[Any] | AsyncIterable[Any]


class ServiceStub(grpclib_client.ServiceStub, Generic[Twin]):
    """What stubs that `streamkit gen` writes derive from: betterproto's, with true types.

    Its own ask for a protocol that its messages do not keep, which pyright tells every user. `Twin`
    is what `streamkit.Client.stub` makes of the stub: the same methods without `async`.
    """

    if TYPE_CHECKING:

        async def _unary_unary(
            self,
            route: str,
            request: Any,
            response_type: type[Reply],
            *,
            timeout: float | None = None,
            deadline: Deadline | None = None,
            metadata: MetadataLike | None = None,
        ) -> Reply: ...

        def _unary_stream(
            self,
            route: str,
            request: Any,
            response_type: type[Reply],
            *,
            timeout: float | None = None,
            deadline: Deadline | None = None,
            metadata: MetadataLike | None = None,
        ) -> AsyncIterator[Reply]: ...

        async def _stream_unary(
            self,
            route: str,
            request_iterator: Messages,
            request_type: type[Any],
            response_type: type[Reply],
            *,
            timeout: float | None = None,
            deadline: Deadline | None = None,
            metadata: MetadataLike | None = None,
        ) -> Reply: ...

        def _stream_stream(
            self,
            route: str,
            request_iterator: Messages,
            request_type: type[Any],
            response_type: type[Reply],
            *,
            timeout: float | None = None,
            deadline: Deadline | None = None,
            metadata: MetadataLike | None = None,
        ) -> AsyncIterator[Reply]: ...


class _Sender:
    """The task that sends a call's requests, as far as the call wants them."""

    def __init__(self, call: ClientCall[Any, Any], requests: Messages) -> None:
        self.fault: Exception | None = None
        """What the requests' own iterator has raised, or what is wrong with one of them."""
        self._call = call
        self._requests = requests
        self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        call = self._call
        try:
            if isinstance(self._requests, AsyncIterable):
                async for request in self._requests:
                    if call.done or not await self._put(request):
                        return
            else:
                for request in self._requests:
                    if call.done or not await self._put(request):
                        return
            if not call.done:
                await call.end()
        except Exception as fault:  # it is the caller's, and ends the call
            self.fault = fault
            call.cancel()

    async def _put(self, request: Any) -> bool:
        """Send a request; False when the call is over and takes no more."""
        try:
            await self._call.send(request)
        except StreamkitError:
            if self._call.done:
                return False
            raise
        return True

    def cancel(self) -> None:
        """Send no more, without waiting for the end of it."""
        self._task.cancel()

    async def stop(self) -> None:
        """Send no more; the requests' generator is closed."""
        self._task.cancel()
        await asyncio.wait([self._task])
        close = getattr(self._requests, "aclose", None)
        if close is not None:
            await close()


class Replies(Generic[Reply]):
    """The replies of one call, made when the first one is asked for.

    The call ends with the last reply, with an error, with `aclose`, and at the latest when nobody
    holds this any more.
    """

    def __init__(self, call: ClientCall[Any, Reply], requests: Messages | None = None) -> None:
        self._call = call
        self._requests = requests
        self._sender: _Sender | None = None
        self._begun = False
        self._over = False

    def __aiter__(self) -> Replies[Reply]:
        return self

    async def __anext__(self) -> Reply:
        if self._over:
            raise StopAsyncIteration
        try:
            if not self._begun:
                self._begun = True
                await self._call.open()
                if self._requests is not None:
                    self._sender = _Sender(self._call, self._requests)
            return await anext(self._call)
        except StopAsyncIteration:
            await self._leave(None)
            raise
        except BaseException as error:
            fault = None if self._sender is None else self._sender.fault
            await self._leave(error)
            if fault is not None and isinstance(error, CallCancelledError):
                raise fault from None
            raise

    async def aclose(self) -> None:
        """End the call, if it has not ended."""
        if not self._over:
            await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        self._over = True
        try:
            await self._call.leave(error)
        finally:
            if self._sender is not None:
                await self._sender.stop()

    def __del__(self) -> None:
        if self._begun and not self._over:
            # Nobody waits for what is left of it, and it may be any thread that drops it.
            loop = self._call.loop
            if not loop.is_closed():
                loop.call_soon_threadsafe(_drop, self._call, self._sender)


def _drop(call: ClientCall[Any, Any], sender: _Sender | None) -> None:
    call.abandon()
    if sender is not None:
        sender.cancel()


async def upload(call: ClientCall[Any, Reply], requests: Messages) -> Reply:
    """Make a call with many requests and one reply, which may come before the last of them."""
    async with call:
        sender = _Sender(call, requests)
        try:
            return await call.reply()
        except CallCancelledError:
            if sender.fault is not None:
                raise sender.fault from None
            raise
        finally:
            await sender.stop()


_ATTRIBUTES = ("channel", "timeout", "deadline", "metadata")


def _init(
    self: Any,
    channel: Any,
    *,
    timeout: float | None = None,
    deadline: Deadline | None = None,
    metadata: Any = None,
) -> None:
    values = (channel, timeout, deadline, metadata)
    self._made_with = made_with = dict(zip(_ATTRIBUTES, values, strict=True))
    for name, value in made_with.items():
        # A method of the service may have the name, and then it keeps it.
        if not inspect.isroutine(getattr(type(self), name, None)):
            setattr(self, name, value)


def _is_ours(stub: Any) -> bool:
    return hasattr(stub._made_with["channel"], "new_call")


def _call(
    stub: Any,
    route: str,
    request_type: type,
    reply_type: type,
    options: dict[str, Any],
    request: Any = None,
) -> ClientCall[Any, Any]:
    """Return a call with what the stub was made with, what was set on it since, and the options."""
    # One by one: to put dictionaries together took as long as all that a new call does.
    own, made_with = stub.__dict__, stub._made_with
    channel = own["channel"] if "channel" in own else made_with["channel"]
    timeout = options.get("timeout")
    if timeout is None:
        timeout = own["timeout"] if "timeout" in own else made_with["timeout"]
    timeout = checked_seconds(timeout)
    deadline = options.get("deadline")
    if deadline is None:
        deadline = own["deadline"] if "deadline" in own else made_with["deadline"]
    if deadline is not None:
        left = deadline.time_remaining()
        timeout = left if timeout is None else min(left, timeout)
    metadata = options.get("metadata")
    if metadata is None:
        metadata = own["metadata"] if "metadata" in own else made_with["metadata"]
    call: ClientCall[Any, Any] = channel.new_call(
        route,
        request_type,
        reply_type,
        request=request,
        timeout=timeout,
        metadata=metadata,
    )
    return call


async def _unary_unary(self: Any, route: str, request: Any, kind: type, **options: Any) -> Any:
    if not _is_ours(self):
        return await _THEIRS["_unary_unary"](self, route, request, kind, **options)
    async with _call(self, route, type(request), kind, options, request) as call:
        return await call.reply()


async def _stream_unary(
    self: Any, route: str, requests: Messages, request_type: type, kind: type, **options: Any
) -> Any:
    if not _is_ours(self):
        return await _THEIRS["_stream_unary"](self, route, requests, request_type, kind, **options)
    return await upload(_call(self, route, request_type, kind, options), requests)


def _unary_stream(
    self: Any, route: str, request: Any, kind: type, **options: Any
) -> AsyncIterator[Any]:
    if not _is_ours(self):
        found: AsyncIterator[Any] = _THEIRS["_unary_stream"](self, route, request, kind, **options)
        return found
    return Replies(_call(self, route, type(request), kind, options, request))


def _stream_stream(
    self: Any, route: str, requests: Messages, request_type: type, kind: type, **options: Any
) -> AsyncIterator[Any]:
    if not _is_ours(self):
        found: AsyncIterator[Any] = _THEIRS["_stream_stream"](
            self, route, requests, request_type, kind, **options
        )
        return found
    return Replies(_call(self, route, request_type, kind, options), requests)


_OURS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "_unary_unary": _unary_unary,
    "_stream_unary": _stream_unary,
    "_unary_stream": _unary_stream,
    "_stream_stream": _stream_stream,
}
_THEIRS = {name: getattr(grpclib_client.ServiceStub, name) for name in _OURS}
"""betterproto's, for stubs on channels of grpclib."""


def take_over() -> None:
    """Put this in the place of betterproto's, for stubs on channels that have `new_call`."""
    for name, ours in _OURS.items():
        setattr(grpclib_client.ServiceStub, name, ours)


take_over()
