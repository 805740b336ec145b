"""Streaming replies of betterproto services, with an owner for the handler's generator.

betterproto's own glue loops over the generator and leaves it suspended when the call ends early;
its `finally` then waits for the garbage collector. Here it is closed before the call is over.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from betterproto.grpc.grpclib_server import ServiceBase

from streamkit.errors import InvalidArgumentError
from streamkit.transport.server.stream import ServerStream

__all__ = ["adopt", "send_replies"]

_GLUE = "_call_rpc_handler_server_stream"


async def send_replies(
    method: Callable[[Any], Any], stream: ServerStream[Any, Any], request: Any
) -> None:
    """Send everything that a streaming handler yields; its generator ends with the call."""
    replies: AsyncIterator[Any] | Awaitable[None] = method(request)
    if not hasattr(replies, "__aiter__"):
        # `async def` without a yield: a coroutine that has nothing to stream.
        await replies
        return
    put, drain = stream.put_message, stream.drain
    try:
        async for reply in replies:
            try:
                full = put(reply)
            except Exception as error:
                _place(error, replies)
                raise
            if full:
                await drain()
    finally:
        close = getattr(replies, "aclose", None)
        if close is not None:
            await close()


def _methods(service: type) -> Iterator[str]:
    """The RPC methods of a service, by the generated class that declares them."""
    for cls in service.__mro__:
        if ServiceBase in cls.__bases__:
            yield from (name for name in vars(cls) if not name.startswith("_"))


def _place(error: Exception, replies: object) -> None:
    """Note where a message comes from: the generator is no part of the traceback."""
    frame = getattr(replies, "ag_frame", None)
    if frame is not None:
        error.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"  # type: ignore[attr-defined]  # ours, read in outcome


def adopt(handler: object) -> None:
    """Give a betterproto service this glue, unless its class has its own.

    InvalidArgumentError when a method is a plain generator: it would hold up the event loop.
    """
    if isinstance(handler, ServiceBase):
        for name in _methods(type(handler)):
            if inspect.isgeneratorfunction(getattr(handler, name)):
                raise InvalidArgumentError(
                    f"{type(handler).__name__}.{name} is a generator without `async`",
                    hint="write `async def`, and await what takes long: asyncio.to_thread for "
                    "what blocks",
                )
        own = getattr(type(handler), _GLUE, None) is not getattr(ServiceBase, _GLUE)
        if not own:
            setattr(handler, _GLUE, send_replies)
