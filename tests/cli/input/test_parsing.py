"""Text from the command line -> values."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from streamkit.cli.input import parsing

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10", 10),
        ("10s", 10),
        ("1.5m", 90),
        ("1h30m", 5400),
        ("7d", 604800),
        ("2w", 1209600),
        ("1h 30m", 5400),
        ("0", 0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parsing.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "10x", "-5s", "5 minutes", "s", "1h-2m"])
def test_duration_says_what_fits(text: str) -> None:
    with pytest.raises(ValueError, match="10s, 5m"):
        parsing.duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500), ("64K", 65536), ("10MB", 10 << 20), ("2GiB", 2 << 30), ("1.5k", 1536), ("0", 0)],
)
def test_size(text: str, size: int) -> None:
    assert parsing.size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "10X", "-1"])
def test_size_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parsing.size(text)


def test_moment() -> None:
    assert parsing.moment("10m", NOW) == NOW - timedelta(minutes=10)
    assert parsing.moment("2026-01-31T12:00:00Z", NOW) == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parsing.moment("2026-01-31T12:00:00+02:00", NOW).hour == 10
    today, yesterday = parsing.moment("today", NOW), parsing.moment("yesterday", NOW)
    assert today <= NOW and today - yesterday == timedelta(days=1)
    with pytest.raises(ValueError, match="not a time"):
        parsing.moment("soon", NOW)
    with pytest.raises(ValueError, match="not a time"):
        parsing.moment("99999999999d", NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 0),
        ("-1h", 3600),
        ("1h ago", 3600),
        ("10 minutes ago", 600),
        ("2 min", 120),
        ("1 day 2 hours ago", 93600),
        ("1 week", 604800),
        ("30 sec", 30),
        ("1h30m", 5400),
        ("@0", NOW.timestamp()),
        ("@1.5", NOW.timestamp() - 1.5),
    ],
)
def test_moments_as_other_tools_take_them(text: str, seconds: float) -> None:
    assert parsing.moment(text, NOW) == NOW - timedelta(seconds=seconds)


def test_a_time_of_day_is_of_today() -> None:
    midnight = parsing.moment("today", NOW)
    assert parsing.moment("9:05", NOW) == midnight + timedelta(hours=9, minutes=5)
    assert parsing.moment("00:00:07", NOW) == midnight + timedelta(seconds=7)
    for text in ("25:00", "12:60", "@", "@nan", "@1e300", "-", "ago", "5 moons ago"):
        with pytest.raises(ValueError, match="not a time"):
            parsing.moment(text, NOW)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    "day", ["2026-03-29", "2026-03-30", "2026-03-08", "2026-10-25", "2026-11-02"]
)
def test_days_begin_at_midnight_also_when_the_clock_is_changed(
    monkeypatch: pytest.MonkeyPatch, zone: str, day: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        here = ZoneInfo(zone)
        now = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=here)
        for word, back in (("today", 0), ("yesterday", 1)):
            date = now.date() - timedelta(days=back)
            wanted = datetime(date.year, date.month, date.day, tzinfo=here).astimezone(UTC)
            assert parsing.moment(word, now.astimezone(UTC)) == wanted
    finally:
        monkeypatch.undo()
        time.tzset()


def test_level() -> None:
    assert [parsing.level(text) for text in ("DEBUG", "warning", "Err", "")] == [
        "debug",
        "warn",
        "error",
        "",
    ]
    with pytest.raises(ValueError, match="debug, info, warn or error"):
        parsing.level("loud")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=5", 5),
        ("n=-5", -5),
        ("n=1.5", 1.5),
        ("n=1e3", "1e3"),
        ("n=12e4567", "12e4567"),
        ("n=1.10", "1.10"),
        ("n=-0.5", -0.5),
        ("n=-0", "-0"),
        ("n=+4915112345678", "+4915112345678"),
        ("n=1000000000000000000", 10**18),
        ("n=9223372036854775807", 2**63 - 1),
        ("n=-9223372036854775808", -(2**63)),
        ("n=9223372036854775808", "9223372036854775808"),
        (f"n={chr(0x661)}", chr(0x661)),
        ("n=true", True),
        ("n=null", None),
        ("n=", ""),
        ("n=a=b", "a=b"),
        ("n=007", "007"),
        ("n=9999999999999999999999", "9999999999999999999999"),
        ("n:text=5", "5"),
        ("n:int=5", 5),
        ("n:decimal=1.10", Decimal("1.10")),
        ("n:blob=00ff", b"\x00\xff"),
        ("n:bool=false", False),
        ("n:time=2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_parameter(text: str, value: object) -> None:
    name, given = parsing.parameter(text)
    assert name == "n"
    assert given == value and type(given) is type(value)


@pytest.mark.parametrize("text", ["n", "=5", ":int=5", "n:int=x", "n:nope=5", "n:blob=xyz"])
def test_parameter_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parsing.parameter(text)


def test_header() -> None:
    assert parsing.header("a=b=c") == ("a", "b=c")
    with pytest.raises(ValueError, match="key=value"):
        parsing.header("a")
