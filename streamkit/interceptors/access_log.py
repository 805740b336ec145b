"""The access log: one line of JSON for each call that has ended, and now and then for long ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from streamkit.errors import Status
from streamkit.interceptors.calls import Calls, Facts, facts_of
from streamkit.transport.server.outcome import DRAINED, GONE, LATE, Outcome

__all__ = ["AccessLog", "line_of", "reason_of"]

_LONGEST_TEXT = 200
_REASONS = {
    Status.UNAUTHENTICATED: "unauthenticated",
    Status.PERMISSION_DENIED: "denied",
    Status.RESOURCE_EXHAUSTED: "limit",
}


class AccessLog:
    """Hands to `write` what the line of every call of `calls` that ends is made of (`line_of`).

    With `every`, `run()` adds a line for each call that has been running for so many seconds, and
    again after as many.
    """

    def __init__(
        self, calls: Calls, write: Callable[[Facts], None], *, every: float | None = None
    ) -> None:
        self._calls = calls
        self._write = write
        self._every = every
        calls.on_end.append(write)

    async def run(self) -> None:
        """Tell of calls that last, until cancelled."""
        if self._every is None:
            return
        while True:
            await asyncio.sleep(self._every)
            for record in self._calls:
                if record.seconds >= self._every:
                    self._write(facts_of(record))


def line_of(facts: Facts) -> str:
    """The line of a call, as JSON; without status and reason while it runs.

    Put together by hand: a short call would spend a tenth of its time in an encoder.
    """
    now, numbers, who, asked, place, trace, reason, outcome = facts
    call, seconds, received, sent, bytes_received, bytes_sent = numbers
    resource, resumed_from, _ = asked
    second = int(now)
    line = (
        f'{{"time": "{_second(second)}.{int((now - second) * 1000):03d}+00:00", "call": {call},'
        f'{_who(*who)} "resource": {_quoted(resource)}, "seconds": {seconds:.6f},'
        f' "received": {received}, "sent": {sent},'
        f' "bytes_received": {bytes_received}, "bytes_sent": {bytes_sent}'
    )
    if resumed_from:
        line += f', "resumed_from": {json.dumps(resumed_from)}'
    if place is not None:
        _, epoch, sequence = place
        line += f', "position": {json.dumps(f"{epoch}:{sequence}")}'
    if trace is not None:
        parts = str(trace).split("-")
        if len(parts) == 4:
            line += f', "trace_id": {json.dumps(parts[1])}'
    if outcome is None:
        return line + ', "open": true}'
    line += _how(outcome.status.value, reason or reason_of(outcome))
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
