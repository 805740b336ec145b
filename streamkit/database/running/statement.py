"""One statement in a worker thread of its own, that can be stopped from anywhere."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from streamkit.database.base import Parameters, Result, Source
from streamkit.errors import CallCancelledError, InternalError, StreamkitError

__all__ = ["CANCEL_INTERVAL", "Statement", "StatementThread"]

CANCEL_INTERVAL = 0.1
"""Seconds after which a cancellation is repeated: one can be lost in a race with the start."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Statement:
    """What to run, where, and for how long at most."""

    source: Source
    sql: str
    parameters: Parameters
    seconds: float


class StatementThread:
    """Opens, starts and closes the statement's result around `work`, then calls `on_end`.

    Both run in the thread. `on_end` gets None or a StreamkitError and is called exactly once,
    when the connection is already closed.
    """

    def __init__(
        self,
        statement: Statement,
        work: Callable[[Result], None],
        on_end: Callable[[StreamkitError | None], None],
    ) -> None:
        self._statement = statement
        self._work = work
        self._on_end = on_end
        self._result: Result | None = None
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamkit-query", daemon=True)
        self._canceller: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop the statement and return at once. Any number of times, by one thread.

        It can be lost in a race with the statement's start: repeat it until `on_end`. What does
        not block is done here and now: to start a thread takes three turns of the interpreter,
        and with busy queries beside it every turn is waited for.
        """
        self._cancelled.set()
        result = self._result  # without one yet, the worker sees the flag when it has opened it
        if result is None or self._done.is_set():
            return
        if not result.cancel_blocks:
            result.cancel()
        elif self._canceller is None:
            self._canceller = threading.Thread(
                target=self._keep_cancelling, args=(result,), name="streamkit-cancel", daemon=True
            )
            self._canceller.start()

    def _keep_cancelling(self, result: Result) -> None:
        while not self._done.is_set():
            result.cancel()
            self._done.wait(CANCEL_INTERVAL)

    def _run(self) -> None:
        error: StreamkitError | None = None
        try:
            self._run_statement()
        except StreamkitError as raised:
            error = raised
        except Exception:  # whoever waits must hear of it
            _log.exception("a query failed for a reason of the server's own")
            error = InternalError("the query failed for a reason of the server's own")
        finally:
            self._done.set()
            self._on_end(error)

    def _run_statement(self) -> None:
        statement = self._statement
        result = statement.source.open(
            statement.sql, statement.parameters, seconds=statement.seconds
        )
        try:
            self._result = result
            if self._cancelled.is_set():
                raise CallCancelledError("the query was cancelled")
            result.start()
            self._work(result)
        finally:
            self._done.set()  # before closing: a cancel must not meet a closed connection
            self._result = None
            result.close()
