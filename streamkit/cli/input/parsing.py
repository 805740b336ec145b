"""Text from the command line -> values. Pure; every refusal is a ValueError that says what fits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TypeVar

from streamkit.terms import LEVELS

__all__ = [
    "LEVELS",
    "duration",
    "header",
    "level",
    "moment",
    "parameter",
    "size",
    "some",
]

N = TypeVar("N", int, float)

_UNIT_SECONDS = {
    "ms": 0.001,
    "": 1.0,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_UNIT_BYTES = {"": 1, "B": 1} | {
    f"{letter}{suffix}": 1024**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix in ("", "B", "iB")
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw]?)")
_AGO = re.compile(
    r"-?((?:\d+(?:\.\d+)?\s*"
    r"(?:ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?)\s*)+)"
    r"(?:\s+ago)?",
    re.ASCII,
)
_WORD = re.compile(r"(ms|[smhdw])[a-z]*")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?(?:iB|B)?)", re.IGNORECASE)


def duration(text: str) -> float:
    """Seconds of 500ms, 10, 10s, 5m, 1h30m, 7d, 2w."""
    compact = text.strip().replace(" ", "")
    parts = _DURATION_PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a duration such as 500ms, 10s, 5m, 1h30m or 7d")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def size(text: str) -> int:
    """Bytes of 500, 64K, 10MB, 2GiB; a unit is a power of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500, 64K, 10MB or 2GiB")
    unit = match[2].upper().replace("IB", "iB")
    return int(float(match[1]) * _UNIT_BYTES[unit])


def moment(text: str, now: datetime | None = None) -> datetime:
    """An aware time, in the forms that people know from journalctl and kubectl.

    10m, -10m, "10 minutes ago", now, today, yesterday, 12:30 (of today), @ and seconds since 1970,
    or ISO 8601 (local unless it names a zone).
    """
    current = datetime.now(UTC) if now is None else now
    word = text.strip().lower()
    if word == "now":
        return current
    if (ago := _AGO.fullmatch(word)) is not None:
        word = text = _WORD.sub(r"\1", ago[1])
    if word in ("today", "yesterday"):
        day = current.astimezone().date() - timedelta(days=word == "yesterday")
        # Without a zone first: the clock may have been changed since midnight.
        return datetime(day.year, day.month, day.day).astimezone(UTC)
    try:
        if _CLOCK.fullmatch(word):
            day = current.astimezone().date()
            time_of_day = datetime.strptime(
                word if word.count(":") == 2 else f"{word}:00", "%H:%M:%S"
            )
            return datetime.combine(day, time_of_day.time()).astimezone(UTC)
        if word.startswith("@"):
            return datetime.fromtimestamp(float(word[1:]), UTC)
    except (ValueError, OverflowError, OSError):
        raise _not_a_time(text) from None
    try:
        return current - timedelta(seconds=duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _not_a_time(text) from None


def _not_a_time(text: str) -> ValueError:
    return ValueError(f"{text!r} is not a time such as 10m, today, 12:30 or 2026-01-31T12:00:00Z")


def level(text: str) -> str:
    """One of debug, info, warn, error, or "" for all."""
    word = text.strip().lower()
    word = {"warning": "warn", "err": "error"}.get(word, word)
    if word not in ("", *LEVELS):
        raise ValueError(f"{text!r} is not a level: debug, info, warn or error")
    return word


def header(text: str) -> tuple[str, str]:
    """The two sides of key=value."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"{text!r} is not of the form key=value")
    return key.strip(), value


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return word == "true"


_PARAMETER_TYPES: dict[str, Callable[[str], object]] = {
    "text": str,
    "int": int,
    "real": float,
    "bool": _boolean,
    "decimal": Decimal,
    "blob": bytes.fromhex,
    "time": moment,
}


def parameter(text: str) -> tuple[str, object]:
    """The name and typed value of name=value or name:type=value.

    Without a type: null, true, false, and whole and real numbers in their shortest form are those,
    all else is text.
    """
    target, value = header(text)
    name, colon, kind = target.partition(":")
    if not name:
        raise ValueError(f"{text!r} has no name before the colon")
    if not colon:
        return name, _guess(value)
    convert = _PARAMETER_TYPES.get(kind)
    if convert is None:
        raise ValueError(f"{kind!r} is not a parameter type: {', '.join(_PARAMETER_TYPES)}")
    try:
        return name, convert(value)
    except (ValueError, InvalidOperation):
        raise ValueError(f"{name}: {value!r} is not of type {kind}") from None


def _guess(value: str) -> object:
    if value.lower() in ("null", "true", "false"):
        return {"null": None, "true": True, "false": False}[value.lower()]
    # Only what is written as a number is written back: 1.10 is a version, +49 a telephone's.
    if re.fullmatch(r"-?\d{1,19}", value):
        number = int(value)
        return number if str(number) == value and -(2**63) <= number < 2**63 else value
    if re.fullmatch(r"-?\d{1,17}\.\d{1,17}", value) and repr(float(value)) == value:
        return float(value)
    return value


def some(read: Callable[[str], N]) -> Callable[[str], N]:
    """The same, but 0 is refused."""

    def more_than_nothing(text: str) -> N:
        value = read(text)
        if not value:
            raise ValueError("must be more than 0")
        return value

    return more_than_nothing
