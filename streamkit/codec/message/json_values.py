"""Single values as JSON has them: the forms that are read, and the one that is written."""

from __future__ import annotations

import math
import re
import struct
from base64 import b64encode
from binascii import Error, a2b_base64
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from streamkit.codec.wire.field import EPOCH, INTEGER_RANGE

__all__ = [
    "Literal",
    "Unfit",
    "as_bool",
    "as_bytes",
    "as_float",
    "as_integer",
    "as_paths",
    "as_seconds",
    "as_span",
    "as_text",
    "bytes_text",
    "called",
    "float_value",
    "paths_text",
    "span_text",
    "time_text",
]


class Unfit(Exception):
    """A value that JSON or the field cannot hold; `path` has the steps to it, last one first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class Literal(str):
    """A number as it stands in the text: its field decides what it is."""

    __slots__ = ()


def called(value: object) -> str:
    """How an error calls a value."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Literal():
            return value if len(value) < 40 else f"{value[:40]}..."
        case str():
            return f'"{value}"' if len(value) < 40 else f'"{value[:40]}..."'
        case dict():
            return "an object"
        case list():
            return "a list"
    return f"a {type(value).__name__}"


# --- numbers -----------------------------------------------------------------------------------

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DIGITS: Final = 20
"""Digits of the longest 64-bit number, its sign included."""


def as_integer(kind: str, value: Any) -> int:
    number = _whole(value)
    low, high = INTEGER_RANGE[kind]
    if not low <= number <= high:
        raise Unfit(f"{called(value)} is out of range for {kind}")
    return number


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str) or (found := _NUMBER.fullmatch(value)) is None:
        raise Unfit(f"{called(value)} is not an integer")
    if found.lastindex is None and len(value) <= _DIGITS:
        return int(value)
    number = Decimal(value)
    if not number:
        return 0
    if number.adjusted() > _DIGITS:
        return 1 << 64 if number > 0 else -1 << 64  # out of every range, and not that many digits
    if number != number.to_integral_value():
        raise Unfit(f"{called(value)} is not an integer")
    return int(number)


_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SINGLE: Final = struct.Struct("<f")


def as_float(kind: str, value: Any) -> float:
    if isinstance(value, str):
        if not isinstance(value, Literal) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if _NUMBER.fullmatch(value) is None:
            raise Unfit(f"{called(value)} is not a number")
        number = float(value)
        if math.isinf(number):
            raise Unfit(f"{called(value)} is out of range for {kind}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            raise Unfit(f"the number is out of range for {kind}") from None
    else:
        raise Unfit(f"{called(value)} is not a number")
    if kind != "float":
        return number
    try:
        single: float = _SINGLE.unpack(_SINGLE.pack(number))[0]
    except OverflowError:
        raise Unfit(f"{called(value)} is out of range for float") from None
    return single


def float_value(kind: str, value: Any) -> float | str:
    """The number, of the fewest digits that say which float it is, or the name of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit(f"{called(value)} is not a number")
    number = float(value)
    if kind == "float" and math.isfinite(number):
        try:
            number = _SINGLE.unpack(_SINGLE.pack(number))[0]
        except OverflowError:
            number = math.copysign(math.inf, number)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if kind != "float":
        return number
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        try:
            if _SINGLE.unpack(_SINGLE.pack(short))[0] == number:
                return short
        except OverflowError:
            continue  # rounded up beyond the largest one
    return float(f"{number:.9g}")


# --- truth, text, bytes ------------------------------------------------------------------------


def as_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"{called(value)} is neither true nor false")
    return value


def as_text(value: Any) -> str:
    if not isinstance(value, str) or isinstance(value, Literal):
        raise Unfit(f"{called(value)} is not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unfit("a lone surrogate is not a character") from None
    return value


_FROM_URL: Final = str.maketrans("-_", "+/")


def as_bytes(value: Any) -> bytes:
    """Read base64, with or without padding, of the usual alphabet or that for addresses."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    text = as_text(value).translate(_FROM_URL)
    bare = text.rstrip("=")
    if len(text) > len(bare) and (len(text) % 4 or len(text) - len(bare) > 2):
        raise Unfit("wrong padding of base64")
    try:
        return a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except (Error, ValueError):
        raise Unfit(f"{called(value)} is not base64") from None


def bytes_text(value: Any) -> str:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise Unfit(f"{called(value)} is not bytes")
    return b64encode(value).decode()


# --- times -------------------------------------------------------------------------------------

_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_SPAN: Final = re.compile(r"(-?)([0-9]{1,15})(?:\.([0-9]{1,9}))?s")
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_LONGEST_SPAN: Final = 315_576_000_000
"""Seconds of ten thousand years, protobuf's bound."""


def as_seconds(value: Any) -> tuple[int, int]:
    """Read a time: the seconds since 1970, and nanoseconds forward from there."""
    found = _TIME.fullmatch(as_text(value))
    if found is None:
        raise Unfit(f"{called(value)} is not a time like 2024-01-02T03:04:05Z")
    *parts, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime(*map(int, parts), tzinfo=UTC)  # type: ignore[arg-type,misc]  # six ints
    except ValueError:
        raise Unfit(f"{called(value)} is not a time that exists") from None
    seconds = (moment - EPOCH) // timedelta(seconds=1)
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise Unfit(f"{called(value)} has no such offset")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise Unfit(f"{called(value)} is not between the years 1 and 9999")
    return seconds, int((fraction or "").ljust(9, "0"))


def time_text(seconds: int, nanos: int) -> str:
    if not (_FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < 1_000_000_000):
        raise Unfit("the time is not between the years 1 and 9999")
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    return f"{moment.isoformat(timespec='seconds')}{_fraction(nanos)}Z"


def as_span(value: Any) -> tuple[int, int]:
    """Read a duration: seconds and nanoseconds, both of one sign."""
    found = _SPAN.fullmatch(as_text(value))
    if found is None:
        raise Unfit(f"{called(value)} is not a duration like 1.5s")
    sign, whole, fraction = found.groups()
    seconds, nanos = int(whole), int((fraction or "").ljust(9, "0"))
    if seconds > _LONGEST_SPAN:
        raise Unfit(f"{called(value)} is longer than ten thousand years")
    return (-seconds, -nanos) if sign else (seconds, nanos)


def span_text(seconds: int, nanos: int) -> str:
    if seconds * nanos < 0 or abs(nanos) > 999_999_999:
        raise Unfit("the nanoseconds do not go with the seconds")
    if abs(seconds) > _LONGEST_SPAN:
        raise Unfit("the duration is longer than ten thousand years")
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def _fraction(nanos: int) -> str:
    """No digits, or three, six or nine."""
    if not nanos:
        return ""
    digits = f"{nanos:09d}"
    if digits.endswith("000000"):
        return f".{digits[:3]}"
    return f".{digits[:6]}" if digits.endswith("000") else f".{digits}"


# --- the paths of a FieldMask ------------------------------------------------------------------

_CAPITAL: Final = re.compile(r"[A-Z]")
_AFTER_UNDERSCORE: Final = re.compile(r"_([a-z])")
_NOT_BOTH_WAYS: Final = re.compile(r"[A-Z]|_(?![a-z])")


def as_paths(value: Any) -> list[str]:
    text = as_text(value)
    if "_" in text:
        raise Unfit(f"{called(value)} has an underscore, which paths do not have in JSON")
    if not text:
        return []
    return _CAPITAL.sub(lambda found: f"_{found[0].lower()}", text).split(",")


def paths_text(paths: list[str]) -> str:
    for path in paths:
        if "," in path or _NOT_BOTH_WAYS.search(path):
            raise Unfit(f"the path {called(path)} cannot be written so that it can be read again")
    return ",".join(_AFTER_UNDERSCORE.sub(lambda found: found[1].upper(), path) for path in paths)
