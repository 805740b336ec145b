"""Delays, budget and push-back: pure, so every number is exact."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from streamkit.client.endings import ENDINGS, STATUSES, Follows
from streamkit.client.retry import PushBack, Retry, RetryBudget, backoff, is_retryable, push_back
from streamkit.config import Backoff
from streamkit.errors import (
    AbortedError,
    AuthError,
    ConnectError,
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    JobFailedError,
    LimitError,
    NotFoundError,
    PreconditionError,
    Status,
    StreamGapError,
)

EVEN = Backoff(jitter=0.0)


def middle() -> float:
    return 0.5


def test_delays_grow_from_one_second_to_thirty() -> None:
    delays = list(islice(backoff(EVEN), 10))
    assert delays[:4] == pytest.approx([1.0, 1.6, 2.56, 4.096])
    assert delays[-1] == 30.0


@pytest.mark.parametrize(
    ("chance", "expected"),
    [(0.0, [0.5, 1.28, 2.048]), (0.5, [1.0, 1.6, 2.56]), (0.999999, [1.5, 1.92, 3.072])],
)
def test_jitter_spreads_both_ways_and_the_first_delay_widest(
    chance: float, expected: list[float]
) -> None:
    delays = list(islice(backoff(Backoff(), lambda: chance), 3))
    assert delays == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "error", [ConnectError("x"), LimitError("x"), AbortedError("x"), ConnectionRefusedError()]
)
def test_passing_faults_are_retryable(error: Exception) -> None:
    assert is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        AuthError("x"),
        DeadlineError("x"),
        InternalError("x"),
        InvalidArgumentError("x"),
        JobFailedError("x"),
        NotFoundError("x"),
        PreconditionError("x"),
        StreamGapError("x"),
        ValueError("x"),
    ],
)
def test_lasting_faults_are_not(error: Exception) -> None:
    assert not is_retryable(error)


def test_push_back_reads_gRPCs_own_trailer() -> None:
    assert push_back({"grpc-retry-pushback-ms": "1500"}) == PushBack(delay=1.5)
    assert push_back({"grpc-retry-pushback-ms": "-1"}) == PushBack(never=True)
    assert push_back({"grpc-retry-pushback-ms": "soon"}) == PushBack(never=True)
    assert push_back({"streamkit-reconnect": "1"}) == PushBack()
    assert push_back({"other": "1"}) is None


def test_push_back_is_obeyed() -> None:
    retry = Retry(EVEN, chance=middle)
    assert retry.delay(ConnectError("x"), {"grpc-retry-pushback-ms": "4000"}) == 4.0
    assert retry.delay(ConnectError("x"), {"grpc-retry-pushback-ms": "-1"}) is None


def test_a_draining_server_is_returned_to_soon_but_only_once() -> None:
    retry = Retry(EVEN, chance=middle)
    draining = {"streamkit-reconnect": "1"}
    delays = [retry.delay(ConnectError("x"), draining) for _ in range(3)]
    assert delays == pytest.approx([0.5, 1.0, 1.6])


def test_progress_and_nothing_else_starts_the_delays_anew() -> None:
    retry = Retry(EVEN, chance=middle)
    delays = [retry.delay(ConnectError("x")) for _ in range(3)]
    assert delays == pytest.approx([1.0, 1.6, 2.56])
    retry.progress()
    assert retry.failures == 0
    assert retry.delay(ConnectError("x")) == 1.0


def test_a_limit_met_again_and_again_becomes_final() -> None:
    retry = Retry(EVEN, chance=middle)
    delays = [retry.delay(LimitError("too large")) for _ in range(6)]
    assert None not in delays[:5]
    assert delays[5] is None


def test_a_spent_budget_stops_progress_from_shortening_the_delays() -> None:
    """A server that dies after every first record: attempts thin out all the same."""
    retry = Retry(EVEN, RetryBudget(), chance=middle)
    delays = []
    for _ in range(12):
        delays.append(retry.delay(ConnectError("x")))
        retry.progress()
    assert delays[:5] == [1.0] * 5
    assert delays[-1] is not None
    assert delays[-1] > 5.0


def test_steady_progress_fills_the_budget_again() -> None:
    budget = RetryBudget()
    for _ in range(10):
        budget.failure()
    assert not budget.allows
    for _ in range(60):
        budget.progress()
    assert budget.allows


def test_single_calls_repeat_at_most_a_tenth_when_everything_fails_for_long() -> None:
    """The throttle of gRPC's own retries: attempts / calls <= 1.1 in the long run."""
    budget = RetryBudget()
    attempts = 0
    calls = 1000
    for _ in range(calls):
        for _ in range(5):
            attempts += 1
            budget.failure()
            if not budget.allows:
                break
    assert attempts / calls <= 1.1


def test_half_a_budget_allows_nothing_any_more() -> None:
    """As gRPC's own throttle: more than half must be left."""
    budget = RetryBudget(tokens=10.0, refund=0.1)
    for _ in range(4):
        budget.failure()
    assert budget.allows
    budget.failure()
    assert budget.tokens == 5.0
    assert not budget.allows
    budget.progress()
    assert budget.allows


def test_progress_makes_a_doubtful_ending_passable_again() -> None:
    """Five in a row without progress are final; a stream that moves between them goes on."""
    retry = Retry(EVEN, RetryBudget(), chance=middle)
    for _ in range(20):
        assert retry.delay(LimitError("for the moment")) is not None
        retry.progress()


def test_a_server_that_wants_us_back_gets_us_whatever_it_said() -> None:
    retry = Retry(EVEN, chance=middle)
    gone = AuthError("the token has run out", status=Status.UNAUTHENTICATED)
    assert retry.delay(gone) is None
    delays = [retry.delay(gone, {"streamkit-reconnect": "1"}) for _ in range(6)]
    assert None not in delays[:5]
    assert delays[5] is None, "wanted, but not for ever"


def test_the_page_about_endings_says_what_the_table_says() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "endings.md").read_text()
    rows = {
        cells[0]: (cells[1], cells[2])
        for line in page.splitlines()
        if line.startswith("|")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    final = (Follows.FINAL, "asked again, it would say it again")
    wanted = {status.name: STATUSES.get(status, final) for status in Status if status.value}
    for ending, (verdict, why) in {**wanted, **ENDINGS}.items():
        assert rows.get(ending) == (verdict.name.lower(), why), ending


def test_a_limit_that_names_its_time_is_met_more_than_five_times() -> None:
    retry = Retry(EVEN, chance=middle)
    wish = {"grpc-retry-pushback-ms": "1000"}
    assert None not in [retry.delay(LimitError("wait for your turn"), wish) for _ in range(9)]
