"""A stream of a service of your own, resumed by the fields that hold its position.

channel = streamkit.Channel("localhost:50052")
request = WatchRequest(topics=["orders.*"])
async for order in streamkit.resume(OrdersStub(channel).watch, request, position="epoch,number"):
    print(order.item)
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast

from streamkit.client.attempts import Reconnect
from streamkit.client.reading.cursor import KeyCursor
from streamkit.client.reading.resume import ResumingCall
from streamkit.errors import InvalidArgumentError
from streamkit.places import Places

if TYPE_CHECKING:
    import betterproto

    from streamkit.transport import Channel

__all__ = ["resume"]

Request = TypeVar("Request", bound="betterproto.Message")
Reply = TypeVar("Reply", bound="betterproto.Message")


def resume(
    method: Callable[..., AsyncIterator[Reply]],
    request: Request,
    *,
    position: str,
    asked_by: str = "",
    reconnect: Reconnect | None = None,
    idle_timeout: float | None = None,
    metadata: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> ResumingCall[Request, Reply]:
    """Call a streaming method of a generated stub as often as it takes; see ResumingCall.

    `position` names the fields of the answers that say where they stand, "epoch,number" for
    instance or "place.number" for one inside a message; text in the first of several names a life
    of the server, and a new one is read from its beginning. `asked_by` names the fields of the
    request, in the same order, that ask for what follows a position; without it they have the same
    names, or the last of them is called `after`. Where it starts is what the request holds. The
    metadata is the stub's unless others are given; its timeout, which is for calls that end, does
    not count.

    With a `reconnect` of your own, `on_event` hears of breaks and new lives. Raises
    InvalidArgumentError for fields that are not there.
    """
    stub, path, reply_type = _called(method, request)
    places = Places("resume", type(request), reply_type, position, asked_by)

    def request_from(place: Any) -> Request:
        if place is None:
            return request
        again = deepcopy(request)
        places.put(again, place if len(places.said) > 1 else (place,))
        return again

    def position_of(reply: Reply) -> Any:
        found = places.of(reply)
        return found if len(found) > 1 else found[0]

    cursor: KeyCursor[Request, Reply] = KeyCursor(request_from, position_of)
    return ResumingCall(
        cast("Channel", stub.channel),
        path,
        type(request),
        reply_type,
        cursor=cursor,
        reconnect=reconnect,
        idle_timeout=idle_timeout,
        metadata=dict(stub.metadata or ()) if metadata is None else metadata,
        timeout=timeout,
    )


class _Called(Exception):  # it carries what a stub was asked to do
    def __init__(self, path: str, reply_type: type[Any]) -> None:
        self.path, self.reply_type = path, reply_type


class _Ear:
    """In the place of a stub: hears which call its method makes."""

    def _unary_stream(self, path: str, _: object, reply_type: type[Any], **__: object) -> Never:
        raise _Called(path, reply_type)


def _called(method: Callable[..., Any], request: object) -> tuple[Any, str, type[Any]]:
    """The stub of a bound method, its path and kind of answer."""
    stub, function = getattr(method, "__self__", None), getattr(method, "__func__", None)
    if inspect.isasyncgenfunction(function) and getattr(stub, "channel", None) is not None:
        try:
            function(_Ear(), request).__anext__().send(None)
        except _Called as call:
            return stub, call.path, call.reply_type
        except (AttributeError, StopIteration, StopAsyncIteration):
            pass  # a call of another kind
    raise InvalidArgumentError(
        f"resume: {getattr(method, '__qualname__', method)!r} is no method that streams",
        hint="give a method of a generated stub: streamkit.resume(OrdersStub(channel).watch, ...)",
    )
