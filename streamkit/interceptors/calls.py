"""The calls of a server, seen from outside: who calls what, since when, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import betterproto

from streamkit.errors import ConnectError, NotFoundError
from streamkit.methods import method_of
from streamkit.terms import NEVER_AGAIN
from streamkit.transport import Context
from streamkit.transport.server.outcome import Outcome

__all__ = ["CallRecord", "Calls", "Facts", "facts_of"]

_LONGEST_RESOURCE = 200
_MOST_NAMES = 50


class CallRecord:
    """One call. What changes while it runs is read off its context."""

    __slots__ = ("began", "context", "id", "resource", "resumed_from", "since")

    def __init__(self, call_id: int, context: Context) -> None:
        self.id = call_id
        self.context = context
        self.since = time.time()
        """Seconds since 1970."""
        self.began = time.monotonic()
        self.resource = ""
        """What its first message asks for: topics, services, a job, a database."""
        self.resumed_from = ""

    @property
    def identity(self) -> str:
        """Who calls; "" where nobody asks."""
        identity = self.context.identity
        return "" if identity is None else identity.name

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began

    def look(self, message: Any) -> float:
        """Note what the first request message asks for."""
        self.context.inspectors.remove(self.look)
        items = method_of(self.context.method).items
        if items is not None:
            for _, names in items(message):
                self.resource = _joined(self.resource, names)
        start = getattr(message, "start", None)
        if start is not None:
            kind, place = betterproto.which_one_of(start, "place")
            if kind == "after" and place is not None:
                self.resumed_from = f"{place.epoch}:{place.sequence}"
        return 0.0


Facts = tuple[
    float,
    tuple[int, float, int, int, int, int],
    tuple[str, str, str, str],
    tuple[str, str, bool],
    tuple[str, str, int] | None,
    object,
    str,
    Outcome | None,
]
"""When; the call, its seconds, messages and bytes in and out; the peer, the identity, the carrier
and the method; what was asked for, from where on, and whether the reply is a stream; the context's
place, the trace that it belongs to, its reason, and how it ended."""


def facts_of(record: CallRecord) -> Facts:
    """What is known of a call. What is made of it can be made later, for many calls at a time,
    which takes half as long; nothing in it keeps the call."""
    ctx = record.context
    return (
        time.time(),
        (
            record.id,
            time.monotonic() - record.began,
            ctx.messages_received,
            ctx.messages_sent,
            ctx.bytes_received,
            ctx.bytes_sent,
        ),
        (ctx.peer, record.identity, ctx.carrier, ctx.method),
        (record.resource, record.resumed_from, ctx.streams_replies),
        ctx.place,
        ctx.metadata.get("traceparent"),
        ctx.reason,
        ctx.outcome,
    )


class Calls:
    """The calls that run now. `GrpcServer(on_call=calls.begin)` fills it."""

    def __init__(self) -> None:
        self._live: dict[int, CallRecord] = {}
        self._last, self._step = 0, 1
        self.on_end: list[Callable[[Facts], None]] = []
        """Told of every call that has ended."""

    def number(self, after: int, step: int) -> None:
        """Give numbers that the other processes of a server do not give."""
        self._last, self._step = after, step

    def __iter__(self) -> Iterator[CallRecord]:
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def begin(self, context: Context) -> None:
        """Take a call in."""
        self._last += self._step
        record = CallRecord(self._last, context)
        self._live[record.id] = record
        context.inspectors.append(record.look)

        def end(_: Context) -> None:
            del self._live[record.id]
            if self.on_end:
                facts = facts_of(record)
                for listener in self.on_end:
                    listener(facts)

        context.when_done(end)

    def kick(self, call_id: int, reason: str = "") -> CallRecord:
        """End a call so that its client stays away. Raises NotFoundError."""
        record = self._live.get(call_id)
        if record is None:
            raise NotFoundError(f"no call {call_id}", hint="`streamkit top` lists what is running.")
        context = record.context
        context.reason = "kicked"
        context.set_trailing_metadata(NEVER_AGAIN)
        text = "an administrator ended the call"
        context.end(ConnectError(f"{text}: {reason}" if reason else text))
        return record


def _joined(text: str, names: set[str]) -> str:
    """A text and names in one line, as many as there is room for."""
    for name in names if len(names) == 1 else sorted(islice(names, _MOST_NAMES)):
        if len(text) > _LONGEST_RESOURCE:
            return text
        text = f"{text},{name}" if text else name
        if len(text) > _LONGEST_RESOURCE:
            return text[:_LONGEST_RESOURCE] + "..."
    return text
