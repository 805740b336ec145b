"""Lists of several processes become one list, page by page."""

from __future__ import annotations

from streamkit.generated.streamservice import CallInfo, ListCallsReply
from streamkit.handlers.colleagues import merged_calls, workers_of


def page(*ids: int, more: bool = False) -> ListCallsReply:
    return ListCallsReply([CallInfo(id=n) for n in ids], "calls-x" if more else "")


def size(call: CallInfo) -> int:
    return 1 << 20


def test_pages_are_merged_as_far_as_all_of_them_reach() -> None:
    merged = merged_calls([page(1, 4, more=True), page(2, 3, 6), page()], size)
    assert [call.id for call in merged.calls] == [1, 2, 3]
    assert merged.next_page_token == "calls-3", "the page is full: three MiB"
    merged = merged_calls([page(4, 7), page(6)], lambda call: 1)
    assert ([call.id for call in merged.calls], merged.next_page_token) == ([4, 6, 7], "")
    merged = merged_calls([page(4, more=True), page(6)], lambda call: 1)
    assert ([call.id for call in merged.calls], merged.next_page_token) == ([4], "calls-4")


def test_a_worker_that_says_nothing_is_listed_all_the_same() -> None:
    owner = {"workers": [(1, 77, 0, 2), (2, 0, 3, 0)]}
    told = [{"number": 1, "uptime": 1.5, "connections": 4, "calls": 5}]
    one, other = workers_of(owner, told)
    assert (one.pid, one.connections, one.calls, one.jumps) == (77, 4, 5, 2)
    assert (other.number, other.pid, other.restarts) == (2, 0, 3)
