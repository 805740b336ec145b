"""The canonical text of a value: one form, whatever the database and whichever the encoder.

    NULL            no entry in the row
    text            itself; bytes that are not UTF-8 become U+FFFD
    boolean         true, false
    integer         its digits
    real            the shortest digits that read back as the same number; with an exponent below
                    1e-6 and from 1e10 on: 0.1  3  1234567.5  1e-7  1.5e+10  inf  -inf  nan
    decimal         its digits at the column's scale, never an exponent: 12.30
    blob            lower-case hex: 00ff
    date            2026-01-31
    time            23:59:59.5
    timestamp       2026-01-31T23:59:59.5Z in UTC; without Z when the column has no time zone
    duration        ISO 8601: PT1.5S, -PT90S, P1M2DT3S for calendar intervals
    uuid            8-4-4-4-12 lower-case hex digits
    list, struct    JSON of the values; a value that JSON lacks is its text

A fraction of a second has as many digits as it needs, and none when it is zero, so that the same
instant reads the same from a microsecond and from a nanosecond column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["datetime_text", "decimal_text", "float_text", "interval_text", "text_of"]

_LOWEST_PLAIN = -6
_HIGHEST_PLAIN = 9
_SECOND = 10**9


def text_of(value: Any) -> str:
    """Return the canonical text of a value other than None."""
    convert = _CONVERTERS.get(type(value))
    if convert is not None:
        return convert(value)
    for kind, convert in _CONVERTERS.items():
        if isinstance(value, kind):
            return convert(value)
    raise TypeError(f"no text form for a value of type {type(value).__name__}")


def float_text(value: float) -> str:
    """As Arrow writes it: Python's digits, other limits for the exponent form, no ".0"."""
    text = repr(value)
    if text.endswith(".0"):
        whole = text[:-2]
        if len(whole) <= _HIGHEST_PLAIN + 1:
            return whole
        return _exponent_form(whole)
    if "e" in text or "." in text:
        return _exponent_form(text)
    return text  # inf, nan


def _exponent_form(text: str) -> str:
    """Place the point of repr's digits by the canonical limits."""
    sign, text = ("-", text[1:]) if text[0] == "-" else ("", text)
    mantissa, _, exponent_digits = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading_zeros = len(whole + fraction) - len(digits)
    exponent = int(exponent_digits or "0") + len(whole) - 1 - leading_zeros
    digits = digits.rstrip("0") or "0"
    if not _LOWEST_PLAIN <= exponent <= _HIGHEST_PLAIN:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{exponent:+d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    rest = digits[exponent + 1 :]
    return f"{sign}{whole}.{rest}" if rest else f"{sign}{whole}"


def decimal_text(value: Decimal) -> str:
    """Positional digits; NaN and infinities as for a real."""
    if value.is_nan():
        return "nan"  # a signalling one is no float
    return format(value, "f") if value.is_finite() else float_text(float(value))


def datetime_text(value: datetime) -> str:
    """ISO 8601, in UTC with a Z when the value has a time zone."""
    if value.tzinfo is None:
        return _trimmed(value.isoformat())
    return _trimmed(value.astimezone(UTC).replace(tzinfo=None).isoformat()) + "Z"


def interval_text(months: int, days: int, nanoseconds: int) -> str:
    """ISO 8601 for a calendar interval; its three parts have signs of their own."""
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    clock = f"T{'-' if nanoseconds < 0 else ''}{seconds}{fraction}S" if nanoseconds else ""
    text = (f"{months}M" if months else "") + (f"{days}D" if days else "") + clock
    return f"P{text}" if text else "PT0S"


def _duration_text(value: timedelta) -> str:
    microseconds = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    text = interval_text(0, 0, abs(microseconds) * 1000)
    return f"-{text}" if microseconds < 0 else text


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time_text(value: time) -> str:
    return _trimmed(value.replace(tzinfo=None).isoformat())


def _hex_text(value: bytes | memoryview) -> str:
    return value.hex()


def _utf8_text(value: bytearray) -> str:
    return value.decode(errors="replace")


def _json_text(value: object) -> str:
    return json.dumps(_json_value(value), ensure_ascii=False, separators=(",", ":"))


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON knows neither inf nor nan
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else text_of(k): _json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return text_of(value)


def _str_text(value: str) -> str:
    """A lone surrogate cannot travel: it becomes a question mark's relative, U+FFFD."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


_CONVERTERS: dict[type, Callable[[Any], str]] = {
    str: _str_text,
    bytearray: _utf8_text,
    bool: _bool_text,  # before int, which it is a kind of
    int: str,
    float: float_text,
    Decimal: decimal_text,
    bytes: _hex_text,
    memoryview: _hex_text,
    datetime: datetime_text,  # before date, which it is a kind of
    date: date.isoformat,
    time: _time_text,
    timedelta: _duration_text,
    UUID: str,
    dict: _json_text,
    list: _json_text,
    tuple: _json_text,
}
