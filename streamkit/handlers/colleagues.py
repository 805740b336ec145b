"""The other processes of a server that has several, as the admin service knows them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Protocol

from streamkit.generated.streamservice import ListCallsReply, WorkerStatus
from streamkit.handlers.paging import PAGE_BYTES, token_of

__all__ = ["Colleagues", "merged_calls", "workers_of"]


class Colleagues(Protocol):
    """Asks all others something, or the process that owns the store.

    What is asked and answered is plain values. Whoever does not answer in time is left out.
    """

    number: int
    """This process's, from 1."""
    calls_after: int
    calls_step: int
    """Numbers of calls that no other one gives."""

    async def others(self, name: str, value: Any) -> list[Any]:
        """The answers of the others that have one."""
        ...

    async def owner(self, name: str, value: Any) -> Any:
        """The owner's answer. Raises ConnectError when it is gone."""
        ...


def merged_calls(pages: Iterable[ListCallsReply], size_of: Any) -> ListCallsReply:
    """One page of several processes' pages of a list from the same place on."""
    pages = list(pages)
    # Beyond the end of a page that is not the last one, calls may be missing.
    ends = [page.calls[-1].id for page in pages if page.next_page_token]
    calls = sorted((call for page in pages for call in page.calls), key=lambda call: call.id)
    known = [call for call in calls if not ends or call.id <= min(ends)]
    reply, size = ListCallsReply(), 0
    for call in known:
        size += size_of(call)
        if size > PAGE_BYTES and reply.calls:
            break
        reply.calls.append(call)
    if reply.calls and len(reply.calls) < len(calls):
        reply.next_page_token = token_of("calls", reply.calls[-1].id)
    return reply


def workers_of(owner: dict[str, Any], answers: Iterable[dict[str, Any]]) -> list[WorkerStatus]:
    """The workers as the owner and they themselves tell of them."""
    known = {answer["number"]: answer for answer in answers}
    found = []
    for number, pid, restarts, jumps in owner["workers"]:
        told = known.get(number, {"uptime": 0.0, "connections": 0, "calls": 0})
        found.append(
            WorkerStatus(
                number=number,
                pid=pid,
                uptime=timedelta(seconds=told["uptime"]),
                connections=told["connections"],
                calls=told["calls"],
                restarts=restarts,
                jumps=jumps,
            )
        )
    return found
