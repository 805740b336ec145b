"""ListCalls and KickCall: what runs on this server, and an end to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol

from streamkit.generated.streamservice import (
    CallInfo,
    KickCallRequest,
    ListCallsReply,
    ListCallsRequest,
    Position,
)
from streamkit.handlers.paging import PAGE_BYTES, place_of, token_of
from streamkit.journal.base import Journal
from streamkit.transport import Context

__all__ = ["LiveCall", "LiveCalls", "kick_call", "list_calls", "size_of"]

_COST = 160
"""Bytes of a call in a list beside its texts."""


class LiveCall(Protocol):
    """One call that runs, as somebody outside of it knows it."""

    id: int
    context: Context
    resource: str

    @property
    def identity(self) -> str: ...

    @property
    def seconds(self) -> float: ...


class LiveCalls(Protocol):
    """The calls of a server."""

    def __iter__(self) -> Iterator[LiveCall]: ...

    def __len__(self) -> int: ...

    def kick(self, call_id: int, reason: str = "") -> LiveCall:
        """End a call so that its client stays away. Raises NotFoundError."""
        ...


def list_calls(calls: LiveCalls, journal: Journal, request: ListCallsRequest) -> ListCallsReply:
    """A page of the calls that run, the oldest first."""
    after = place_of(request.page_token, "calls") or 0
    reply, size = ListCallsReply(), 0
    for call in calls:
        if call.id <= after:
            continue
        info = _info(call, journal)
        size += size_of(info)
        if size > PAGE_BYTES and reply.calls:
            reply.next_page_token = token_of("calls", reply.calls[-1].id)
            break
        reply.calls.append(info)
    return reply


def size_of(info: CallInfo) -> int:
    """About how many bytes a call takes in a list."""
    texts = (info.identity, info.peer, info.method, info.resource, info.user_agent)
    return _COST + sum(len(text.encode("utf-8", "replace")) for text in texts)


def kick_call(calls: LiveCalls, journal: Journal, request: KickCallRequest) -> CallInfo:
    """End a call; returns what it was. Raises NotFoundError."""
    return _info(calls.kick(request.id, request.reason), journal)


def _info(call: LiveCall, journal: Journal) -> CallInfo:
    ctx = call.context
    info = CallInfo(
        id=call.id,
        identity=call.identity,
        peer=ctx.peer,
        carrier=ctx.carrier,
        method=ctx.method,
        resource=call.resource,
        age=timedelta(seconds=call.seconds),
        received=ctx.messages_received,
        sent=ctx.messages_sent,
        bytes_received=ctx.bytes_received,
        bytes_sent=ctx.bytes_sent,
        user_agent=ctx.user_agent,
    )
    if ctx.place is not None:
        _, epoch, sequence = ctx.place
        info.position = Position(epoch, sequence)
        info.lag = journal.lag(ctx.place, ctx.pending)
    return info
