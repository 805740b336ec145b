"""The access log: one line of JSON for each call that has ended, and now and then for long ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from streamkit.errors import Status
from streamkit.interceptors.calls import CallRecord, Calls
from streamkit.transport.server.outcome import DRAINED, GONE, LATE, Outcome

__all__ = ["AccessLog", "describe", "reason_of"]

_LONGEST_TEXT = 200
_REASONS = {
    Status.OK: "done",
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
        self._write(json.dumps(describe(record)))

    async def run(self) -> None:
        """Tell of calls that last, until cancelled."""
        if self._every is None:
            return
        while True:
            await asyncio.sleep(self._every)
            for record in self._calls:
                if record.seconds >= self._every:
                    self._write(json.dumps(describe(record)))


def describe(record: CallRecord) -> dict[str, Any]:
    """What is known of a call; without status and reason while it runs."""
    ctx = record.context
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "call": record.id,
        "peer": ctx.peer,
        "identity": record.identity,
        "carrier": ctx.carrier,
        "method": ctx.method,
        "resource": record.resource,
        "seconds": round(record.seconds, 6),
        "received": ctx.messages_received,
        "sent": ctx.messages_sent,
        "bytes_received": ctx.bytes_received,
        "bytes_sent": ctx.bytes_sent,
    }
    if record.resumed_from:
        line["resumed_from"] = record.resumed_from
    if ctx.place is not None:
        _, epoch, sequence = ctx.place
        line["position"] = f"{epoch}:{sequence}"
    trace = str(ctx.metadata.get("traceparent", "")).split("-")
    if len(trace) == 4:
        line["trace_id"] = trace[1]
    outcome = ctx.outcome
    if outcome is None:
        line["open"] = True
    else:
        line |= {"status": outcome.status.name, "reason": ctx.reason or reason_of(outcome)}
        if outcome.message:
            line["message"] = outcome.message[:_LONGEST_TEXT]
    return line


def reason_of(outcome: Outcome) -> str:
    """Why a call ended, in a word."""
    for known, reason in ((GONE, "client"), (LATE, "deadline"), (DRAINED, "drain")):
        if (outcome.status, outcome.message) == (known.status, known.message):
            return reason
    return _REASONS.get(outcome.status, "error")
