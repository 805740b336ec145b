"""Whose query runs next, when more are asked for than run at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from math import ceil

from streamkit.config import QueryLimits
from streamkit.errors import LimitError

__all__ = ["Turns"]

_LOOK_INTERVAL = 0.25


class Turns:
    """So many at once, of one caller its share; next is whose caller has fewest, then who came
    first. Belongs to one event loop.

    `make_room` is called again and again while somebody waits, with the caller whose own queries
    are in the way, or None when everybody's are.
    """

    def __init__(self, limits: QueryLimits, make_room: Callable[[str | None], None]) -> None:
        self._make_room = make_room
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self.restrict(limits)

    def restrict(self, limits: QueryLimits) -> None:
        """Give turns by these limits from now on; those that were given stay."""
        self._most = limits.max_concurrent
        self._share = max(1, ceil(self._most * limits.share))
        self._wait = limits.max_wait
        self._next()

    async def take(self, owner: str) -> None:
        """Wait for a turn; the caller "" has no share to keep to. Raises LimitError."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        self._next()
        try:
            async with asyncio.timeout(self._wait):
                while not turn.done():
                    # What has lain unread long enough is in the way no moment longer.
                    self._make_room(owner if self._has_share(owner) else None)
                    await asyncio.wait([turn], timeout=_LOOK_INTERVAL)
        except TimeoutError:
            if not turn.done():
                raise self._refusal(owner) from None
        except BaseException:
            if turn.done():
                self.give(owner)
            raise
        finally:
            if not turn.done():
                self._waiting.remove((owner, turn))

    def give(self, owner: str) -> None:
        """A turn is over."""
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        self._next()

    def _next(self) -> None:
        while self._running.total() < self._most:
            waiting = [entry for entry in self._waiting if not self._has_share(entry[0])]
            if not waiting:
                return
            owner, turn = entry = min(waiting, key=lambda entry: self._running[entry[0]])
            self._waiting.remove(entry)
            self._running[owner] += 1
            turn.set_result(None)

    def _has_share(self, owner: str) -> bool:
        return bool(owner) and self._running[owner] >= self._share

    def _refusal(self, owner: str) -> LimitError:
        if self._has_share(owner):
            what = f"{self._share} of your queries are running, one caller's share"
        else:
            what = f"{self._most} queries are running, the server's limit"
        return LimitError(what, hint="try again when one of them has ended")
