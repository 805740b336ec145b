"""The access log: one line of JSON for each call that has ended, and now and then for long ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from streamkit.errors import Status
from streamkit.interceptors.calls import CallRecord, Calls
from streamkit.transport.server.outcome import DRAINED, GONE, LATE, Outcome

__all__ = ["AccessLog", "line_of", "reason_of"]

_LONGEST_TEXT = 200
_REASONS = {
    Status.UNAUTHENTICATED: "unauthenticated",
    Status.PERMISSION_DENIED: "denied",
    Status.RESOURCE_EXHAUSTED: "limit",
}


class AccessLog:
    """Hands a line to `write` for every call of `calls` that ends.

    With `every`, `run()` adds a line for each call that has been running for so many seconds, and
    again after as many.
    """

    def __init__(
        self, calls: Calls, write: Callable[[str], None], *, every: float | None = None
    ) -> None:
        self._calls = calls
        self._write = write
        self._every = every
        calls.on_end.append(self._end)

    def _end(self, record: CallRecord) -> None:
        self._write(line_of(record))

    async def run(self) -> None:
        """Tell of calls that last, until cancelled."""
        if self._every is None:
            return
        while True:
            await asyncio.sleep(self._every)
            for record in self._calls:
                if record.seconds >= self._every:
                    self._write(line_of(record))


def line_of(record: CallRecord) -> str:
    """What is known of a call, as JSON; without status and reason while it runs.

    Put together by hand: a short call would spend a tenth of its time in an encoder.
    """
    ctx = record.context
    now = time.time()
    second = int(now)
    when = f"{_second(second)}.{int((now - second) * 1000):03d}+00:00"
    line = (
        f'{{"time": "{when}", "call": {record.id},'
        f"{_who(ctx.peer, record.identity, ctx.carrier, ctx.method)}"
        f' "resource": {_quoted(record.resource)}, "seconds": {record.seconds:.6f},'
        f' "received": {ctx.messages_received}, "sent": {ctx.messages_sent},'
        f' "bytes_received": {ctx.bytes_received}, "bytes_sent": {ctx.bytes_sent}'
    )
    if record.resumed_from:
        line += f', "resumed_from": {json.dumps(record.resumed_from)}'
    if ctx.place is not None:
        _, epoch, sequence = ctx.place
        line += f', "position": {json.dumps(f"{epoch}:{sequence}")}'
    if "traceparent" in ctx.metadata:
        trace = str(ctx.metadata["traceparent"]).split("-")
        if len(trace) == 4:
            line += f', "trace_id": {json.dumps(trace[1])}'
    outcome = ctx.outcome
    if outcome is None:
        return line + ', "open": true}'
    line += _how(outcome.status.value, ctx.reason or reason_of(outcome))
    if outcome.message:
        line += f', "message": {json.dumps(outcome.message[:_LONGEST_TEXT])}'
    return line + "}"


_quoted = lru_cache(maxsize=1024)(json.dumps)
"""Of what is said again and again: topics, services."""


@lru_cache(maxsize=1024)
def _who(peer: str, identity: str, carrier: str, method: str) -> str:
    return (
        f' "peer": {json.dumps(peer)}, "identity": {json.dumps(identity)},'
        f' "carrier": {json.dumps(carrier)}, "method": {json.dumps(method)},'
    )


@lru_cache(maxsize=128)
def _how(status: int, reason: str) -> str:
    return f', "status": "{Status(status).name}", "reason": {json.dumps(reason)}'


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def reason_of(outcome: Outcome) -> str:
    """Why a call ended, in a word."""
    if outcome.status is Status.OK:
        return "done"
    for known, reason in ((GONE, "client"), (LATE, "deadline"), (DRAINED, "drain")):
        if (outcome.status, outcome.message) == (known.status, known.message):
            return reason
    return _REASONS.get(outcome.status, "error")
