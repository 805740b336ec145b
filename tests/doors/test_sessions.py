"""Logins of the page: how long they hold, and what of them outlives the server."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from streamkit.config import DoorLimits
from streamkit.doors.page.sessions import Sessions

LIMITS = DoorLimits(sessions=3, session_seconds=100, code_seconds=10)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db.logins"


def test_a_code_opens_one_session_and_only_for_a_while(clock: Clock) -> None:
    sessions = Sessions(LIMITS, clock=clock)
    code, late = sessions.new_code(), sessions.new_code()
    cookie = sessions.redeem(code)
    assert cookie is not None and sessions.find(cookie) is not None
    assert sessions.redeem(code) is None and sessions.redeem("none") is None
    clock.now += 10
    assert sessions.redeem(late) is None
    clock.now += 90
    assert sessions.find(cookie) is None


def test_a_login_without_a_token_outlives_the_server(clock: Clock, file: Path) -> None:
    first = Sessions(LIMITS, file=str(file), clock=clock)
    kept, left, secret = first.open(""), first.open(""), first.open("sk_ann_secret")
    first.close(left)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_text()
    assert not any(text in written for text in (kept, left, secret, "sk_ann"))
    second = Sessions(LIMITS, file=str(file), clock=clock)
    assert second.find(kept) is not None
    assert second.find(left) is None and second.find(secret) is None
    clock.now += 100
    assert second.find(kept) is None
    assert Sessions(LIMITS, file=str(file), clock=clock).find(kept) is None


def test_there_are_never_more_than_the_limit_says(clock: Clock, file: Path) -> None:
    sessions = Sessions(LIMITS, file=str(file), clock=clock)
    cookies = [sessions.open("") for _ in range(5)]
    assert [sessions.find(one) is not None for one in cookies] == [False, False, True, True, True]
    codes = [sessions.new_code() for _ in range(5)]
    assert [sessions.redeem(one) is not None for one in codes] == [False, False, True, True, True]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": "b"}', "[" * 100_000, '{"a": 1e300}'])
def test_a_file_that_makes_no_sense_is_no_login(text: str, clock: Clock, file: Path) -> None:
    file.write_text(text)
    sessions = Sessions(LIMITS, file=str(file), clock=clock)
    assert not sessions._sessions
    assert sessions.find(sessions.open("")) is not None


def test_where_nothing_can_be_written_a_login_holds_as_long_as_the_server(clock: Clock) -> None:
    sessions = Sessions(LIMITS, file="/nowhere/at/all", clock=clock)
    assert sessions.find(sessions.open("")) is not None
