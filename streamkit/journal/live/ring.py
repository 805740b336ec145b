"""The end of a stream in memory, and who is woken by what.

A ring holds the newest items of one stream, bounded in records and bytes. A route is all readers
with one selector: it lists the ring's items that the selector wants, so that a reader never looks
at an item that it did not ask for. Which routes want a key is found out once per key and kept;
an item that nobody wants costs one look-up, however many readers there are.

Readers hold positions, not queues: what a slow reader has not read yet is not kept for it. When
the ring drops an item its routes drop it too, and a reader that was not there yet sees that its
cursor is gone and reads on from further back (see reader.py).

Wake-ups merge by themselves: items pushed while the loop is busy wake each reader once, and all
readers of a route that were waiting get the same delivery, the same object. Where many were woken
the loop rests from waking for as long as that took: what is published one by one meanwhile reaches
each of them together, in one write, and whoever publishes is not kept waiting by all who read.

Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Generic, TypeVar

from streamkit.config import JournalOptions
from streamkit.errors import LimitError
from streamkit.journal.base import Delivery, Item, Items, Position, Selector, Stream, patterns_of
from streamkit.patterns import Exact, Patterns, tokens_of

__all__ = ["BATCH_BYTES", "BATCH_RECORDS", "Ring", "Route", "cut"]

T = TypeVar("T")

BATCH_RECORDS = 1024
"""The most items of one delivery."""
BATCH_BYTES = 384 * 1024
"""The most that the items of one delivery sum up to, unless it is a single one."""

_DEFAULTS = JournalOptions()
_KNOWN_KEYS = 65_536
_SCAN = 8192
_SHARED_DELIVERIES = 8
_SLACK = 4096
_MANY = 64
"""Readers woken at once, from which on the next wake-up waits as long as this one takes, ..."""
_PART = 32
"""Readers woken before the loop does something else."""
_LONGEST_REST = 0.02
"""... but so many seconds at most."""

_sequence_of = attrgetter("sequence")


def _wake(waiting: Iterable[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


class Route(Generic[T]):
    """All readers with one selector, and the ring's items that they want, in order.

    A cursor counts the route's items from the first one ever; `base` is that count for the
    oldest item still here. Every wanted item after the sequence `floor` is here.
    """

    __slots__ = (
        "_head",
        "_items",
        "_shared",
        "base",
        "dirty",
        "floor",
        "readers",
        "sealed",
        "sealed_at",
        "selector",
        "waiting",
    )

    def __init__(self, selector: Selector, newest: int) -> None:
        self.selector = selector
        self.floor = newest
        self.base = 0
        self.readers = 0
        self.waiting: dict[asyncio.Future[None], None] = {}
        """In the order in which they came, which is that of their connections."""
        self.dirty = False
        self.sealed = 0
        """Cursor of the first item that was not announced yet."""
        self.sealed_at = newest
        """The stream's newest sequence when the last items were announced."""
        self._items: list[Item[T]] = []
        self._head = 0
        self._shared: dict[int, tuple[int, Delivery[T]]] = {}

    def append(self, item: Item[T]) -> None:
        self._items.append(item)

    def drop(self, item: Item[T]) -> None:
        """The ring dropped the item; it is the oldest one here, or it came before the route."""
        head = self._head
        if head < len(self._items) and self._items[head] is item:
            self.floor = item.sequence
            self.base += 1
            self._items[head] = None  # type: ignore[call-overload]  # never read below the head
            self._head = head = head + 1
            if head > _SLACK and head * 2 > len(self._items):
                del self._items[:head]
                self._head = 0

    def skip(self, newest: int) -> None:
        """Nothing up to `newest` is here any more: whoever has read less reads it elsewhere."""
        self.floor = newest
        self.base += 1  # also for a reader that had taken everything: it misses something now
        _wake(self.seal(newest))

    def seal(self, newest: int) -> list[asyncio.Future[None]]:
        """Announce everything that is here. Return who waits for it and is to be woken."""
        self.dirty = False
        self.sealed = self.base + len(self._items) - self._head
        self.sealed_at = newest
        self._shared.clear()
        waiting, self.waiting = self.waiting, {}
        return [*waiting]

    def wake(self) -> None:
        """Wake who waits."""
        waiting, self.waiting = self.waiting, {}
        _wake(waiting)

    def cursor_after(self, sequence: int) -> int:
        """The cursor of the first item after a sequence that is not below the floor."""
        index = bisect_right(self._items, sequence, lo=self._head, key=_sequence_of)
        return self.base + index - self._head

    def waiting_items(self, cursor: int) -> list[Item[T]]:
        """All announced items from a cursor on that is not below `base`."""
        offset = self._head - self.base
        return self._items[cursor + offset : self.sealed + offset]

    def take(self, cursor: int, epoch: str) -> tuple[int, Delivery[T]]:
        """The next delivery from a cursor of `base` to `sealed` - 1, and the cursor after it."""
        found = self._shared.get(cursor)
        if found is None:
            items = cut(self.waiting_items(cursor)[:BATCH_RECORDS])
            after = cursor + len(items)
            position = self.sealed_at if after == self.sealed else items[-1].sequence
            found = (after, Delivery(items, Position(epoch, position)))
            if len(self._shared) >= _SHARED_DELIVERIES:
                self._shared.clear()
            self._shared[cursor] = found
        return found


def cut(items: Sequence[Item[T]]) -> Items[T]:
    """The first items that together are one delivery; at least one if there is one."""
    total = 0
    for count, item in enumerate(items):
        total += item.size
        if total > BATCH_BYTES and count:
            return Items(items[:count])
    return Items(items)


class Ring(Generic[T]):
    """The newest items of one stream, by contiguous sequence, and the routes through them."""

    def __init__(
        self,
        epoch: str,
        newest: int,
        *,
        max_records: int,
        max_bytes: int,
        max_keys: int = _DEFAULTS.followed_keys,
        max_tokens: int = _DEFAULTS.pattern_tokens,
    ) -> None:
        self.epoch = epoch
        self.newest = newest
        self.floor = newest
        """Every item after this sequence is here."""
        self.closed = False
        self.gaps = 0
        """How often a reader was told, or ended, because what it was to read was gone."""
        self.behind = 0
        """Following readers that read from the store, or from far back, to catch up."""
        self.routes: dict[Selector, Route[T]] = {}
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._items: list[Item[T]] = []
        self._head = 0
        self._bytes = 0
        self._wanted: dict[str, dict[int, tuple[Route[T], ...]]] = {}
        self._exact: Exact[Route[T]] = Exact()
        self._every: dict[Route[T], None] = {}
        self._patterns: dict[Stream, Patterns[Route[T]]] = {}
        self._most_keys = max_keys
        self._most_tokens = max_tokens
        self._keys = 0
        self._tokens = 0
        self._dirty: list[Route[T]] = []
        self._wake_scheduled = False
        self._rests_until = 0.0

    def __len__(self) -> int:
        return len(self._items) - self._head

    @property
    def readers(self) -> int:
        return sum(route.readers for route in self.routes.values())

    def join(self, selector: Selector) -> Route[T]:
        """The selector's route for one more reader, who gives it back with `leave`.

        Raises LimitError if all readers together would follow too many patterns.
        """
        route = self.routes.get(selector)
        if route is None:
            route = Route(selector, self.newest)
            self._weigh(selector, 1)
            self.routes[selector] = route
            self._register(route)
        route.readers += 1
        return route

    def leave(self, route: Route[T]) -> None:
        route.readers -= 1
        if not route.readers:
            del self.routes[route.selector]
            self._unregister(route)
            self._weigh(route.selector, -1)

    def push(self, items: Sequence[Item[T]]) -> None:
        """Add items that follow the newest, drop what no longer fits, schedule the wake-ups."""
        wanted = self._wanted
        dirty = self._dirty
        total = 0
        for item in items:
            try:
                routes = wanted[item.key][item.rank]
            except KeyError:
                routes = self._routes_for(item.key, item.rank)
            for route in routes:
                route.append(item)
                if not route.dirty:
                    route.dirty = True
                    dirty.append(route)
            total += item.size
        self._items.extend(items)
        self._bytes += total
        self.newest = items[-1].sequence
        self._evict()
        if dirty and not self._wake_scheduled:
            self._wake_scheduled = True
            loop = asyncio.get_running_loop()
            rest = self._rests_until and self._rests_until - time.monotonic()
            if rest > 0:
                loop.call_later(rest, self._wake)
            else:
                loop.call_soon(self._wake)

    def scan(self, selector: Selector, after: int) -> tuple[Items[T], int]:
        """Wanted items after a sequence that is not below `floor`, and the sequence covered.

        Looks at a bounded number of items: without a find the sequence covered still advances.
        """
        start = self._head + after - self.floor
        window = self._items[start : start + _SCAN]
        if not window:
            return Items(), after
        covered = window[-1].sequence
        if selector.patterns or selector.min_rank:
            known: dict[tuple[str, int], bool] = {}
            found = []
            for item in window:
                key = (item.key, item.rank)
                wanted = known.get(key)
                if wanted is None:
                    wanted = known[key] = selector.matches(*key)
                if wanted:
                    found.append(item)
                    if len(found) == BATCH_RECORDS:
                        covered = item.sequence
                        break
        else:
            found = window[:BATCH_RECORDS]
            covered = found[-1].sequence
        items = cut(found)
        return items, covered if len(items) == len(found) else items[-1].sequence

    def skip(self, newest: int) -> None:
        """Everything up to `newest` is in the store, and some of it never came here: readers find
        it there. Nothing happens if the ring has it all."""
        if newest <= self.newest:
            return
        self._drop(len(self))
        self.newest = self.floor = newest
        for route in self.routes.values():
            route.skip(newest)

    def close(self) -> None:
        """Announce what is here and wake every reader; they read it and end. May be repeated."""
        self.closed = True
        _wake(self._seal())
        for route in self.routes.values():
            route.wake()

    def _wake(self) -> None:
        waiting = self._seal()
        if len(waiting) < _MANY:
            self._wake_scheduled = False
            _wake(waiting)
        else:
            self._wake_part(waiting, 0, time.monotonic())

    def _seal(self) -> list[asyncio.Future[None]]:
        dirty, self._dirty = self._dirty, []
        return [future for route in dirty for future in route.seal(self.newest)]

    def _wake_part(self, waiting: list[asyncio.Future[None]], start: int, began: float) -> None:
        """Wake some of many. Between two parts the loop does whatever else there is."""
        end = start + _PART
        _wake(waiting[start:end])
        loop = asyncio.get_running_loop()
        if end < len(waiting):
            loop.call_soon(self._wake_part, waiting, end, began)
        else:
            loop.call_soon(self._served, began, False)

    def _served(self, began: float, written: bool) -> None:
        """Called once those that were woken have run, and again when what they wrote has left."""
        loop = asyncio.get_running_loop()
        if not written:
            loop.call_soon(self._served, began, True)
            return
        now = time.monotonic()
        rest = min(now - began, _LONGEST_REST)
        if self._dirty:
            loop.call_later(rest, self._wake)
        else:
            self._wake_scheduled = False
            self._rests_until = now + rest

    def _evict(self) -> None:
        self._drop(len(self) - self._max_records)

    def _drop(self, over: int) -> None:
        """Drop so many of the oldest items, and as many more as are too many bytes."""
        items, head = self._items, self._head
        while head < len(items) and (over > 0 or self._bytes > self._max_bytes):
            item = items[head]
            head += 1
            over -= 1
            self._bytes -= item.size
            self.floor = item.sequence
            try:
                routes = self._wanted[item.key][item.rank]
            except KeyError:
                routes = self._routes_for(item.key, item.rank)
            for route in routes:
                route.drop(item)
        if head > _SLACK and head * 2 > len(items):
            del items[:head]
            head = 0
        else:
            items[self._head : head] = [None] * (head - self._head)  # type: ignore[list-item]  # behind the head
        self._head = head

    def _routes_for(self, key: str, rank: int) -> tuple[Route[T], ...]:
        found = [*self._every, *self._exact.find(key)]
        for patterns in self._patterns.values():
            found += patterns.find(key)
        routes = tuple(route for route in found if route.selector.min_rank <= rank)
        if len(self._wanted) >= _KNOWN_KEYS:
            self._wanted.clear()
        self._wanted.setdefault(key, {})[rank] = routes
        return routes

    def _register(self, route: Route[T]) -> None:
        index = self._index(route.selector)
        if index is None:
            self._every[route] = None
        else:
            for pattern in route.selector.patterns:
                index.add(pattern, route)
        self._forget(route)

    def _unregister(self, route: Route[T]) -> None:
        index = self._index(route.selector)
        if index is None:
            del self._every[route]
        else:
            for pattern in set(route.selector.patterns):
                index.remove(pattern, route)
        self._forget(route)

    def _weigh(self, selector: Selector, sign: int) -> None:
        """Count what is followed: memory is bounded by it, and what a new key costs."""
        if selector.every_key():
            return
        if selector.exact():
            self._keys += sign * len(selector.patterns)
        else:
            self._tokens += sign * sum(map(tokens_of, selector.patterns))
        if sign > 0 and (self._keys > self._most_keys or self._tokens > self._most_tokens):
            self._weigh(selector, -1)
            raise LimitError(
                "the readers of this server follow too many patterns",
                hint="ask for fewer topics or services, or for a wider pattern",
            )

    def _index(self, selector: Selector) -> Patterns[Route[T]] | None:
        """Where routes with this selector are found, if they do not want every key."""
        if selector.every_key():
            return None
        if selector.exact():
            return self._exact
        if selector.stream not in self._patterns:
            self._patterns[selector.stream] = patterns_of(selector.stream)
        return self._patterns[selector.stream]

    def _forget(self, route: Route[T]) -> None:
        """A route came or went: who wants its keys has to be found out again."""
        if not route.selector.exact():
            self._wanted.clear()
            return
        for key in route.selector.patterns:
            self._wanted.pop(key, None)
