"""Client interceptors: coroutines around a call that its user drives step by step."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

from streamkit.errors import PreconditionError, internal

__all__ = ["CallNext", "Onion"]

CallNext = Callable[[], Awaitable[None]]
Call = TypeVar("Call")


class Onion(Generic[Call]):
    """The interceptors of one call, suspended inside `call_next` while the call is in use.

    They run in the task of the call's user, not beside it: what they set in the context holds for
    the call, and a cancellation passes through them as through any other `await`.
    """

    __slots__ = ("_call", "_interceptors", "_open", "_run")

    def __init__(
        self,
        interceptors: Sequence[Callable[[Call, CallNext], Awaitable[None]]],
        call: Call,
        open_call: CallNext,
    ) -> None:
        self._interceptors = interceptors
        self._call = call
        self._open = open_call
        self._run: Coroutine[Any, Any, None] | None = None

    async def enter(self) -> None:
        """Run the interceptors down to the call and open it."""
        run = self._layer(0)
        if await _drive(run, None):
            raise internal(PreconditionError("an interceptor did not make the call"))
        self._run = run  # not before: what has failed has ended, and there is nothing to leave

    async def exit(self, error: BaseException | None) -> None:
        """Let the interceptors finish with `error`; raises what they make of it.

        When they swallow it, it goes on all the same: its user would have no outcome otherwise.
        """
        run, self._run = self._run, None
        if run is None:
            return
        if not await _drive(run, error):
            run.close()
            raise internal(PreconditionError("an interceptor made the call twice"))

    def close(self) -> None:
        """End the interceptors where they are: nobody waits for the call."""
        run, self._run = self._run, None
        if run is not None:
            run.close()

    async def _layer(self, index: int) -> None:
        if index == len(self._interceptors):
            await self._open()
            await _suspend()
        else:
            await self._interceptors[index](self._call, lambda: self._layer(index + 1))


_OPEN = object()


@types.coroutine
def _suspend() -> Generator[Any, Any, None]:
    yield _OPEN


@types.coroutine
def _drive(
    run: Coroutine[Any, Any, None], error: BaseException | None
) -> Generator[Any, Any, bool]:
    """Continue a coroutine until it suspends itself (False) or ends (True).

    What else it waits for is waited for by the caller, as with `await`.
    """
    try:
        step = run.send(None) if error is None else run.throw(error)
        while step is not _OPEN:
            try:
                value = yield step
            except BaseException as thrown:  # handed on, as `yield from` would
                step = run.throw(thrown)
            else:
                step = run.send(value)
    except StopIteration:
        return True
    return False
