"""The one loop of attempts: streams, queries, writers and single calls are all made by it.

An attempt is a coroutine function that returns the outcome or raises. What it raises is judged by
`endings` and `retry`: the error is the caller's, or the attempt is made again after a delay, which
a closing channel cuts short. A cancellation always wins, also over an error of the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from streamkit.client.endings import Follows, follows
from streamkit.client.events import ClientEvent, Kind, OnEvent, tell
from streamkit.client.retry import MAX_DOUBTFUL, Retry, RetryBudget, push_back
from streamkit.errors import ConnectError, Status, StreamkitError
from streamkit.terms import RECONNECT_HEADER

__all__ = ["Attempts", "Reconnect"]

T = TypeVar("T")


class Reconnect:
    """How a call comes back: shared settings, one `Retry` for each call."""

    def __init__(
        self,
        retry: Callable[[], Retry] = Retry,
        *,
        enabled: bool = True,
        patient: bool = False,
        on_event: OnEvent | None = None,
        open_timeout: float = 20.0,
        renewed: Callable[[], Awaitable[bool]] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.retry = retry
        self.enabled = enabled
        self.patient = patient
        """Whether a server that is not there at the first attempt is waited for."""
        self.on_event = on_event
        self.open_timeout = open_timeout
        self.renewed = renewed
        """Asked when the server did not know the caller: whether another token is there by now."""
        self.sleep = sleep


_LATE = ("http 408", "http 504")
"""A gateway's answers when somebody was there and took too long."""


class Attempts:
    """The attempts of one call, with what they have learned so far. Owned by that call.

    `most` bounds them for calls that somebody waits for. `budget` is shared by such calls: what a
    server that answers has to take from all of them. `tells_loss`: a long stream, whose end is
    news; of a single call only the waiting is.
    """

    def __init__(
        self,
        how: Reconnect,
        name: str,
        closing: asyncio.Event,
        *,
        most: int | None = None,
        budget: RetryBudget | None = None,
        tells_loss: bool = False,
        patient: bool = False,
    ) -> None:
        self.trailers: Mapping[str, object] | None = None
        """What came with the status of the attempt that just failed; for the attempt to set."""
        self.needed: Callable[[], bool] = lambda: True
        """Whether anything is held up by a failure; if not, nobody is told and nothing waits."""
        self.hurried: asyncio.Event | None = None
        """Cuts the waiting short when it is set."""
        self._how = how
        self._name = name
        self._closing = closing
        self._most = most
        self._budget = budget
        self._tells_loss = tells_loss
        self._retry = how.retry()
        self._patient = patient or how.patient
        self._was_open = False
        self._delay: float | None = None
        """To wait before the next attempt; None: nothing."""
        self._waiting_since: float | None = None

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        broke: Callable[[StreamkitError], Awaitable[object]] | None = None,
    ) -> T:
        """Return what an attempt returns; raise what no further one can help. `broke` tidies up
        after one that failed.

        Cancelled while waiting, the next `run` waits for what is left of the delay.
        """
        task = asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        while True:
            if self._delay is not None:
                await self._rest(self._delay)
            self.trailers = None
            try:
                return await attempt()
            except StreamkitError as error:
                if broke is not None:
                    await broke(error)
                if task is not None and task.cancelling() > cancelling:
                    raise asyncio.CancelledError from error
                await self._renew(error)
                self._failed(error)

    def opened(self) -> None:
        """The server has answered: whatever happens now, it was there."""
        if self._tells_loss:
            self._tell("resumed" if self._was_open else "connected")
        elif self._retry.failures:
            self._tell("resumed")
        self._was_open = True

    def progress(self) -> None:
        """Something arrived: the delays begin anew."""
        self._retry.progress()
        if self._budget is not None:
            self._budget.progress()

    # ---- inside ----

    async def _renew(self, error: StreamkitError) -> None:
        """A token that ran out on its way is no reason to end: the next attempt shows another."""
        renewed = self._how.renewed
        if renewed is None or error.status is not Status.UNAUTHENTICATED:
            return
        if await renewed():
            self.trailers = {**(self.trailers or {}), RECONNECT_HEADER: "1"}

    def _failed(self, error: StreamkitError) -> None:
        """Raise the error if it is final, else note when the next attempt may begin."""
        if self._closing.is_set():
            raise ConnectError("the client is closed") from error
        delay = self._judge(error)
        if delay is None:
            raise error
        if not self.needed():
            return
        if self._tells_loss:
            self._tell("lost", f"{self._name}: {error}", error=error)
            self._tell("reconnecting", delay=delay)
        else:
            self._tell("reconnecting", delay=delay, error=error)
        self._delay, self._waiting_since = delay, None

    def _judge(self, error: StreamkitError) -> float | None:
        """Seconds until the next attempt, or None: there is none."""
        how, trailers = self._how, self.trailers
        known = self._was_open or self._patient
        if not how.enabled or (not known and not self._may_begin(error)):
            return None
        # Repeating costs nothing to a server that is away, and what it wishes for is fine.
        costs = trailers is not None and push_back(trailers) is None
        if self._budget is not None and costs:
            self._budget.failure()
        delay = self._retry.delay(error, trailers)
        if self._most is not None and self._retry.failures >= self._most:
            return None
        if self._budget is not None and costs and not self._budget.allows:
            return None
        return delay

    def _may_begin(self, error: StreamkitError) -> bool:
        """Whether a call that never was open is worth another attempt: not at a wrong address."""
        if error.ending in ("", "status"):
            return not isinstance(error, ConnectError)
        gateway = error.ending.startswith("http") and error.ending not in _LATE
        if gateway or follows(error) is not Follows.AGAIN:
            return False
        return self._retry.failures < MAX_DOUBTFUL

    async def _rest(self, left: float) -> None:
        """Wait for the time of the next attempt, or until somebody is in a hurry."""
        loop = asyncio.get_running_loop()
        if self._waiting_since is None:
            self._waiting_since = loop.time()
        else:
            left = max(0.0, left - (loop.time() - self._waiting_since))
        wakers = [self._closing]
        if self.hurried is not None:
            self.hurried.clear()
            wakers.append(self.hurried)
        ends = [asyncio.ensure_future(self._how.sleep(left))]
        ends += [asyncio.ensure_future(waker.wait()) for waker in wakers]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)
        if self._closing.is_set():
            raise ConnectError("the client is closed")
        self._delay = None

    def _tell(
        self,
        kind: Kind,
        detail: str = "",
        *,
        delay: float | None = None,
        error: StreamkitError | None = None,
    ) -> None:
        tell(self._how.on_event, ClientEvent(kind, detail or self._name, delay, error))
