"""The hub for services of your own: records in, resumable streams out, in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from streamkit.errors import PreconditionError
from streamkit.journal.base import (
    Bounds,
    Delivery,
    Item,
    Items,
    Position,
    Selector,
    Stream,
    new_epoch,
)
from streamkit.journal.live.reader import Manner, Page, Reader
from streamkit.journal.live.ring import Ring

__all__ = ["Hub"]

T = TypeVar("T")


class Hub(Generic[T]):
    """Gives every published record a sequence, and to every subscriber what it asked for.

    A hub keeps the newest records in a bounded ring that all subscribers share; a subscriber is
    a position in it. Publishing never waits. A subscriber that is slower than the ring is long
    learns what it lost: as a `Loss` with `tell_loss`, else as StreamGapError. A broken stream
    goes on after the last position that was delivered. Keys are topics: "orders.eu", and
    patterns "orders.*" and "orders.>".

        hub: Hub[Tick] = Hub()

        class Ticker(TickerBase):
            async def watch(self, request: WatchRequest) -> AsyncIterator[Tick]:
                place = (request.epoch, request.after)
                async for tick in hub.stream(request.symbols, after=place):
                    yield tick

        hub.publish("EURUSD", Tick(hub.epoch, hub.position.sequence + 1, price=1.07))

    For speed read `subscribe` and send `Framed(joined_frames(delivery, frame),
    len(delivery.items))` instead of the messages: the bytes are then made once for all
    subscribers. A hub belongs to one event loop.
    """

    def __init__(self, *, max_records: int = 65_536, max_bytes: int = 32 << 20) -> None:
        self.epoch = new_epoch()
        """Names this hub's life: a position of another one is refused."""
        self._ring: Ring[T] = Ring(self.epoch, 0, max_records=max_records, max_bytes=max_bytes)

    @property
    def position(self) -> Position:
        """The place after the newest record."""
        return Position(self.epoch, self._ring.newest)

    @property
    def bounds(self) -> Bounds:
        """The oldest and newest sequence that can be read."""
        return Bounds(self._ring.floor + 1, self._ring.newest)

    @property
    def subscribers(self) -> int:
        return self._ring.readers

    def publish(self, key: str, record: T, *, rank: int = 0, size: int = 512) -> int:
        """Hand a record to every subscriber that wants it and return its sequence.

        `size` is about what it costs in memory; it counts against the ring's `max_bytes`. The
        record must not be changed afterwards. Never waits.
        """
        sequence = self._ring.newest + 1
        self._ring.push((Item(sequence, key, rank, record, size),))
        return sequence

    def subscribe(
        self,
        *patterns: str,
        after: Position | None = None,
        min_rank: int = 0,
        heartbeat: float | None = None,
        latest: bool = False,
        tell_loss: bool = False,
    ) -> AsyncGenerator[Delivery[T], None]:
        """What was published after a position (default: from now on), then what comes.

        The first delivery is empty; its position is the place started from. The other words are
        those of `Journal.read`. Close the generator (`contextlib.aclosing`) to unsubscribe.
        """
        if after is not None and (after.epoch != self.epoch or after.sequence > self._ring.newest):
            raise PreconditionError(
                f"position {after.sequence} of epoch {after.epoch or 'none'} is not of this hub",
                hint="start without a position",
            )
        place = self._ring.newest if after is None else after.sequence

        async def begin() -> Page[T]:
            return Page(Items[T](), place, self._ring.floor + 1)

        selector = Selector(Stream.UPDATES, patterns, min_rank)
        manner = Manner(heartbeat=heartbeat, latest=latest, tell_loss=tell_loss)
        return Reader(self._ring, None, selector, manner).live(begin)

    async def stream(
        self,
        patterns: str | Iterable[str],
        *,
        after: Position | tuple[str, int] | int | None = None,
    ) -> AsyncGenerator[T, None]:
        """The records themselves, for a handler to yield: what was published after a position,
        then what comes.

        `after` is what the caller's last record said: its epoch and number. No epoch, and that of
        another life, start with the oldest record that is kept, so that a caller misses nothing of
        this life; None starts from now on. A bare number is of another life if it is higher than
        this one has come. A position that is older than what is kept raises StreamGapError, and so
        does falling behind by more than the hub keeps.

            async def watch(self, request: WatchRequest) -> AsyncIterator[Order]:
                place = (request.epoch, request.after)
                async for order in self.hub.stream(request.topics, after=place):
                    yield order
        """
        place = None
        if isinstance(after, int):
            after = (self.epoch if 0 < after <= self._ring.newest else "", after)
        if after is not None:
            epoch, number = after
            place = Position(self.epoch, number if epoch == self.epoch else self._ring.floor)
        names = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        async with aclosing(self.subscribe(*names, after=place)) as deliveries:
            async for delivery in deliveries:
                for item in delivery.items:
                    yield item.message

    def close(self) -> None:
        """End all subscriptions, once they have read what is there."""
        self._ring.close()
