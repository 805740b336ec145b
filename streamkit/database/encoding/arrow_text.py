"""The canonical text (see text.py) of whole Arrow columns, by Arrow's kernels."""

from __future__ import annotations

from typing import Any

from streamkit.database.encoding.text import decimal_text, interval_text, text_of
from streamkit.database.extras import library
from streamkit.errors import QueryError

__all__ = ["text_array", "unsupported"]

_PLAIN_SCALE = range(7)
"""Scales at which Arrow never writes a decimal with an exponent."""
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
_BEYOND = {
    # Infinities of DuckDB, then of PostgreSQL, whose driver moves them from 2000 to 1970 as well.
    2**31 - 1: "infinity",
    -(2**31) + 1: "-infinity",
    2**63 - 1: "infinity",
    -(2**63) + 1: "-infinity",
    -(2**31) + 10_956: "infinity",
    -(2**31) + 10_957: "-infinity",
    -(2**63) + 946_684_799_999_999: "infinity",
    -(2**63) + 946_684_800_000_000: "-infinity",
    86_400 * 10**6: "24:00:00",
}
_UUID_PARTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


def text_array(array: Any, name: str = "") -> Any:
    """Return the column as pyarrow strings, NULL kept. Raises QueryError for an unknown type."""
    pa, pc = library("pyarrow"), library("pyarrow.compute")
    kind, t = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _extension_text(array, name)
    if t.is_string(kind):
        return _valid(array)
    if t.is_large_string(kind) or kind == pa.string_view():
        return _valid(array.cast(pa.string()))
    if t.is_boolean(kind) or t.is_integer(kind):
        return array.cast(pa.string())
    if t.is_date(kind):
        return _beyond(array, array.cast(pa.string()), name)
    if t.is_floating(kind):
        wide = array.cast(pa.float32()) if t.is_float16(kind) else array
        return wide.cast(pa.string())
    if t.is_null(kind):
        return array.cast(pa.string())
    if t.is_decimal(kind):
        text = array.cast(pa.string())
        return text if kind.scale in _PLAIN_SCALE else _positional(array, text)
    if t.is_timestamp(kind):
        text = array.view(pa.timestamp(kind.unit)).cast(pa.string())
        text = pc.replace_substring(_trimmed(text, kind.unit), " ", "T", max_replacements=1)
        text = text if kind.tz is None else pc.binary_join_element_wise(text, "Z", "")
        return _beyond(array, text, name)
    if t.is_time(kind):
        return _beyond(array, _trimmed(array.cast(pa.string()), kind.unit), name)
    if _is_binary(kind):
        return _hex(array)
    if t.is_dictionary(kind):
        return text_array(array.dictionary_decode(), name)
    if t.is_duration(kind):
        return _duration_text(array)
    return _text_by_value(array, name)


def unsupported(kind: Any) -> str:
    """The database's name of a type that came as bytes nobody here can read, or ""."""
    pa = library("pyarrow")
    opaque = isinstance(kind, pa.OpaqueType) and _is_binary(kind.storage_type)
    return str(kind.type_name) if opaque and kind.type_name != "void" else ""


def _is_binary(kind: Any) -> bool:
    pa = library("pyarrow")
    t = pa.types
    return bool(
        t.is_binary(kind)
        or t.is_large_binary(kind)
        or t.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _valid(array: Any) -> Any:
    """Drivers promise UTF-8; a database without an encoding of its own does not keep it."""
    pa = library("pyarrow")
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        values = array.cast(pa.binary()).to_pylist()
        return pa.array(
            [None if v is None else v.decode(errors="replace") for v in values], pa.string()
        )
    return array


def _extension_text(array: Any, name: str) -> Any:
    pa, pc = library("pyarrow"), library("pyarrow.compute")
    kind = array.type
    if opaque := unsupported(kind):
        raise QueryError(
            f"column {name!r} has the type {opaque}, which has no text form here:"
            " cast it to text in the query"
        )
    if isinstance(kind, pa.UuidType):
        digits = _hex(array.storage)
        parts = [pc.utf8_slice_codeunits(digits, start, stop) for start, stop in _UUID_PARTS]
        return pc.binary_join_element_wise(*parts, "-")
    return text_array(array.storage, name)


def _trimmed(text: Any, unit: str) -> Any:
    """Take the zeros at the end of a fraction away, and the point with the last of them."""
    if unit == "s":
        return text
    pc = library("pyarrow.compute")
    return pc.ascii_rtrim(pc.ascii_rtrim(text, "0"), ".")


def _beyond(array: Any, text: Any, name: str) -> Any:
    """Arrow has no words for what its calendar does not hold: infinities, midnight as 24:00."""
    pa, pc = library("pyarrow"), library("pyarrow.compute")
    strange = pc.fill_null(pc.starts_with(text, "<"), False)
    if not pc.any(strange).as_py():
        return text
    numbers = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    words = [_BEYOND.get(number) for number in numbers.filter(strange).to_pylist()]
    if None in words:
        raise QueryError(
            f"column {name!r} holds a day beyond the calendar here: cast it to text in the query"
        )
    return pc.replace_with_mask(text, strange, pa.array(words, pa.string()))


def _positional(array: Any, text: Any) -> Any:
    """Arrow writes very small decimals with an exponent: these, and only these, one by one."""
    pa, pc = library("pyarrow"), library("pyarrow.compute")
    scientific = pc.match_substring(text, "E")
    if not pc.any(scientific).as_py():
        return text
    plain = [decimal_text(value) for value in array.filter(scientific).to_pylist()]
    return pc.replace_with_mask(text, pc.fill_null(scientific, False), pa.array(plain))


def _hex(array: Any) -> Any:
    """The hex of all values at once, then the places of each in it."""
    pa, pc = library("pyarrow"), library("pyarrow.compute")
    array = array.cast(pa.large_binary()) if not pa.types.is_large_binary(array.type) else array
    digits = b"".join(array.drop_null().to_pylist()).hex().encode()
    lengths = pc.multiply(pc.fill_null(pc.binary_length(array), 0), 2)
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    text = pa.LargeStringArray.from_buffers(
        len(array), ends.buffers()[1], pa.py_buffer(digits), null_count=0
    )
    text = text.cast(pa.string())
    if array.null_count:
        text = pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))
    return text


def _duration_text(array: Any) -> Any:
    pa = library("pyarrow")
    scale = _NANOSECONDS[array.type.unit]
    texts = []
    for count in array.cast(pa.int64()).to_pylist():
        text = None if count is None else interval_text(0, 0, abs(count) * scale)
        texts.append(f"-{text}" if text and count < 0 else text)
    return pa.array(texts, pa.string())


def _text_by_value(array: Any, name: str) -> Any:
    """Lists, structs, maps, calendar intervals: rare enough to go value by value."""
    pa = library("pyarrow")
    try:
        values = array.to_pylist(maps_as_pydicts="lossy")
        texts = [None if v is None else _value_text(v) for v in values]
    except (ValueError, TypeError, KeyError) as error:
        raise QueryError(
            f"column {name!r} of type {array.type} has no text form: {error}"
        ) from None
    return pa.array(texts, pa.string())


def _value_text(value: Any) -> str:
    pa = library("pyarrow")
    if isinstance(value, pa.MonthDayNano):
        return interval_text(value.months, value.days, value.nanoseconds)
    return text_of(value)
