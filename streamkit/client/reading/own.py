"""A stream of a service of your own, resumed by the fields that hold its position.

channel = streamkit.Channel("localhost:50052")
request = WatchRequest(topics=["orders.*"])
async for order in streamkit.resume(OrdersStub(channel).watch, request, position="epoch,number"):
    print(order.item)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast

from streamkit.client.attempts import Reconnect
from streamkit.client.reading.cursor import KeyCursor
from streamkit.client.reading.resume import ResumingCall
from streamkit.errors import InvalidArgumentError

if TYPE_CHECKING:
    import betterproto

    from streamkit.transport import Channel

__all__ = ["resume"]

Request = TypeVar("Request", bound="betterproto.Message")
Reply = TypeVar("Reply", bound="betterproto.Message")

_LAST = "after"
"""What a request mostly calls the number that the answers call otherwise."""


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
    names, or the last of them is called `after`. Where it starts is what the request holds.

    With a `reconnect` of your own, `on_event` hears of breaks and new lives. Raises
    InvalidArgumentError for fields that are not there.
    """
    channel, path, reply_type = _called(method, request)
    places = _fields(reply_type, position)
    asking = _asking(type(request), places, asked_by)

    def request_from(place: Any) -> Request:
        if place is None:
            return request
        again = deepcopy(request)
        for names, value in zip(asking, place if len(places) > 1 else (place,), strict=True):
            _set(again, names, value)
        return again

    def position_of(reply: Reply) -> Any:
        found = tuple(_get(reply, names) for names in places)
        return found if len(found) > 1 else found[0]

    cursor: KeyCursor[Request, Reply] = KeyCursor(request_from, position_of)
    return ResumingCall(
        channel,
        path,
        type(request),
        reply_type,
        cursor=cursor,
        reconnect=reconnect,
        idle_timeout=idle_timeout,
        metadata=metadata,
        timeout=timeout,
    )


class _Called(Exception):  # it carries what a stub was asked to do
    def __init__(self, path: str, reply_type: type[Any]) -> None:
        self.path, self.reply_type = path, reply_type


class _Ear:
    """In the place of a stub: hears which call its method makes."""

    def _unary_stream(self, path: str, _: object, reply_type: type[Any], **__: object) -> Never:
        raise _Called(path, reply_type)


def _called(method: Callable[..., Any], request: object) -> tuple[Channel, str, type[Any]]:
    """The channel, path and kind of answer of a stub's bound method."""
    stub, function = getattr(method, "__self__", None), getattr(method, "__func__", None)
    channel = getattr(stub, "channel", None)
    if inspect.isasyncgenfunction(function) and channel is not None:
        try:
            function(_Ear(), request).__anext__().send(None)
        except _Called as call:
            return cast("Channel", channel), call.path, call.reply_type
        except (AttributeError, StopIteration, StopAsyncIteration):
            pass  # a call of another kind
    raise InvalidArgumentError(
        f"resume: {getattr(method, '__qualname__', method)!r} is no method that streams",
        hint="give a method of a generated stub: streamkit.resume(OrdersStub(channel).watch, ...)",
    )


Path = Sequence[str]


def _fields(kind: type[Any], position: str) -> list[Path]:
    """Each name as the fields that lead to it. Raises InvalidArgumentError."""
    names = [name.strip() for name in position.split(",")]
    if missing := [name for name in names if not _has(kind, name.split("."))]:
        raise InvalidArgumentError(
            f"resume: {kind.__name__} has no field {missing[0]!r}",
            hint=f"it has {', '.join(_names(kind))}",
        )
    return [name.split(".") for name in names]


def _asking(kind: type[Any], places: list[Path], asked_by: str) -> list[Path]:
    if asked_by:
        asking = _fields(kind, asked_by)
        if len(asking) != len(places):
            raise InvalidArgumentError("resume: asked_by names more or fewer fields than position")
        return asking
    asking = list(places)
    if not _has(kind, asking[-1]) and _has(kind, [_LAST]):
        asking[-1] = [_LAST]
    for names in asking:
        if not _has(kind, names):
            raise InvalidArgumentError(
                f"resume: {kind.__name__} has no field {'.'.join(names)!r}",
                hint=f"say in asked_by which of {', '.join(_names(kind))} take the position",
            )
    return asking


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _has(kind: type[Any], names: Path) -> bool:
    for index, name in enumerate(names):
        if not dataclasses.is_dataclass(kind) or name not in _names(kind):
            return False
        if index + 1 < len(names):
            inner: Any = kind()
            kind = inner._betterproto.cls_by_field.get(name, object)
    return True


def _get(message: Any, names: Path) -> Any:
    for name in names:
        message = getattr(message, name)
    return message


def _set(message: Any, names: Path, value: object) -> None:
    for name in names[:-1]:
        inner = getattr(message, name)
        setattr(message, name, inner)  # one that was unset counts as set from now on
        message = inner
    setattr(message, names[-1], value)
