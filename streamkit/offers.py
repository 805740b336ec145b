"""Streams of services of one's own that are offered as server-sent events, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Offer", "as_events", "offer_of"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Offer:
    """Where a method's replies are read as events, and which fields hold their positions."""

    address: str
    position: str = ""
    asked_by: str = ""


def as_events(address: str, *, position: str = "", asked_by: str = "") -> Callable[[F], F]:
    """Decorate a streaming method: with `web`, its replies are events at this address as well.

        class Orders(OrdersBase):
            @streamkit.as_events("/v1/orders", position="epoch,number")
            async def watch(self, request: WatchRequest) -> AsyncIterator[Order]: ...

    The fields of the request are words of the address: /v1/orders?topics=orders.*. `position` and
    `asked_by` are those of `resume`: they make the id of an event, and `Last-Event-ID` goes on
    after it. Without a `position` events have no ids. What a reader misses is an event "gap"; a
    method that returns ends with an event "end", and a reader that comes again for more gets none.

    Where it is served, InvalidArgumentError tells of fields that are not there, of two methods
    with one address, and of methods that do not stream.
    """

    def mark(method: F) -> F:
        offer = Offer(address, position, asked_by)
        method.__streamkit_events__ = offer  # type: ignore[attr-defined]  # ours
        return method

    return mark


def offer_of(method: object) -> Offer | None:
    """How a method is offered; None for one that is not."""
    offer: Offer | None = getattr(method, "__streamkit_events__", None)
    return offer
