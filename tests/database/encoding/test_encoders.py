"""Two encoders, one text: the table one in plain Python and the one of Arrow's kernels."""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.database.encoding.arrow_batches import text_batch
from streamkit.database.encoding.arrow_rows import ArrowRowEncoder
from streamkit.database.encoding.arrow_text import text_array
from streamkit.database.encoding.rows import Encoded, RowEncoder, cut
from streamkit.database.encoding.text import float_text, text_of
from streamkit.errors import LimitError, QueryError
from tests.database.google import QueryResult


def decoded(encoded: Encoded) -> list[dict[str, str]]:
    return [dict(row.columns) for row in QueryResult.FromString(bytes(encoded.data)).rows]


VALUES = [
    (True, "true"),
    (False, "false"),
    (0, "0"),
    (-(2**63), "-9223372036854775808"),
    (2**63 - 1, "9223372036854775807"),
    (0.0, "0"),
    (-0.0, "-0"),
    (3.0, "3"),
    (1.5, "1.5"),
    (0.1 + 0.2, "0.30000000000000004"),
    (1e-6, "0.000001"),
    (9.999e-7, "9.999e-7"),
    (9999999999.0, "9999999999"),
    (1234567890.125, "1234567890.125"),
    (1e10, "1e+10"),
    (-1.25e300, "-1.25e+300"),
    (5e-324, "5e-324"),
    (math.inf, "inf"),
    (-math.inf, "-inf"),
    (math.nan, "nan"),
    (Decimal("12.30"), "12.30"),
    (Decimal("0.00000001"), "0.00000001"),
    (Decimal("-1E+3"), "-1000"),
    ("", ""),
    ("Grüße\0\n", "Grüße\0\n"),
    (bytearray(b"caf\xe9!"), "caf�!"),
    (b"\x00\xff", "00ff"),
    (b"", ""),
    (date(2026, 1, 31), "2026-01-31"),
    (time(23, 59, 59), "23:59:59"),
    (time(1, 2, 3, 450000), "01:02:03.45"),
    (datetime(2026, 1, 31, 23, 59, 59), "2026-01-31T23:59:59"),
    (datetime(2026, 1, 31, 23, 59, 59, 500000, UTC), "2026-01-31T23:59:59.5Z"),
    (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T22:00:00Z"),
    (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    (timedelta(seconds=1.5), "PT1.5S"),
    (timedelta(days=-1, seconds=-30), "-PT86430S"),
    (timedelta(0), "PT0S"),
    (UUID(int=255), "00000000-0000-0000-0000-0000000000ff"),
    (["b", None, "a"], '["b",null,"a"]'),
    (["Grüße"], '["Grüße"]'),
    ({"a": 1.5, "b": [b"\x01"]}, '{"a":1.5,"b":["01"]}'),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=lambda value: repr(value)[:40])
def test_the_canonical_text(value: Any, text: str) -> None:
    assert text_of(value) == text
    if isinstance(value, bytearray):
        array = text_batch([(value,)], ["a"]).column(0)
    elif isinstance(value, UUID):
        array = pa.array([value.bytes], pa.uuid())
    else:
        array = pa.array([value, None])
    assert text_array(array)[0].as_py() == text


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([1.5, 1e10], pa.float32()), ["1.5", "1e+10"]),
        (pa.array([1_500_000_001], pa.timestamp("ns")), ["1970-01-01T00:00:01.500000001"]),
        (pa.array([0], pa.timestamp("s", "Europe/Berlin")), ["1970-01-01T00:00:00Z"]),
        (pa.array([-1], pa.timestamp("us", "UTC")), ["1969-12-31T23:59:59.999999Z"]),
        (pa.array([1500, -2], pa.duration("ms")), ["PT1.5S", "-PT0.002S"]),
        (pa.array([(14, -3, 5 * 10**9)], pa.month_day_nano_interval()), ["P14M-3DT5S"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["6162", "6364"]),
        (pa.array([b"a", None], pa.large_binary()), ["61", None]),
        (pa.array(["x"], pa.large_string()), ["x"]),
        (
            pa.array([Decimal("0.0000001"), None, Decimal(5)], pa.decimal128(20, 7)),
            ["0.0000001", None, "5.0000000"],
        ),
        (pa.array([Decimal("12300")], pa.decimal128(5, -2)), ["12300"]),
        (pa.array([b"\xff"]).view(pa.string()), ["�"]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_the_canonical_text_of_what_only_arrow_has(array: Any, texts: list[str]) -> None:
    assert text_array(array).to_pylist() == texts


def test_a_slice_of_an_array_is_its_own_text() -> None:
    for array in (pa.array([b"a", b"bc", None, b"d"]), pa.array([1.5, None, 2.0, 3.25])):
        assert text_array(array.slice(1, 2)).to_pylist() == text_array(array).to_pylist()[1:3]


def test_a_type_without_text_is_a_clear_error() -> None:
    strange = pa.ExtensionArray.from_storage(
        pa.opaque(pa.binary(), "point", "PostgreSQL"), pa.array([b"x"])
    )
    with pytest.raises(QueryError, match=r"'spot' has the type point.*cast it to text"):
        text_array(strange, "spot")


SQLITE_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=40).map(lambda text: bytearray(text, "utf-8", "surrogatepass")),
    st.binary(max_size=40),
    st.binary(max_size=20).map(bytearray),
)


@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(st.tuples(*[SQLITE_VALUES] * width), min_size=1, max_size=20)
    )
)
def test_both_encoders_write_the_same_bytes(rows: list[tuple[Any, ...]]) -> None:
    names = [f"cölumn {i}" for i in range(len(rows[0]))]
    plain = RowEncoder(names).encode(rows)
    vectorised = ArrowRowEncoder(names).encode(text_batch(rows, names))

    assert bytes(plain.data) == bytes(vectorised.data)
    assert list(plain.ends) == list(vectorised.ends)
    assert decoded(plain) == [
        {n: text_of(v) for n, v in zip(names, row, strict=True) if v is not None} for row in rows
    ]


@given(st.floats(width=64))
def test_the_text_of_a_real_is_arrows_and_reads_back(value: float) -> None:
    text = float_text(value)

    assert text == pa.array([value]).cast(pa.string())[0].as_py()
    assert struct.pack("d", float(text)) == struct.pack("d", value) or math.isnan(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("NaN", "nan"),
        ("-sNaN", "nan"),
        ("Infinity", "inf"),
        ("-Infinity", "-inf"),
        ("1E+3", "1000"),
    ],
)
def test_a_decimal_that_is_no_number_reads_as_a_real_does(value: str, text: str) -> None:
    assert text_of(Decimal(value)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20)))
def test_decimals_are_positional(value: Decimal) -> None:
    if abs(value) < 10**25:
        array = pa.array([value], pa.decimal128(38, 9))
        assert text_array(array)[0].as_py() == text_of(value)


@given(st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-7))])))
def test_timestamps_agree(value: datetime) -> None:
    kind = pa.timestamp("us", "UTC" if value.tzinfo else None)
    if datetime(2, 1, 1) < value.replace(tzinfo=None) < datetime(9998, 1, 1):
        assert text_array(pa.array([value], kind))[0].as_py() == text_of(value)


def test_long_values_and_wide_rows() -> None:
    rows = [
        (bytearray(b"x" * size), None, bytearray("é".encode() * (size // 3)), size)
        for size in (0, 1, 127, 128, 1023, 1024, 1025, 5000, 16_384, 70_000)
    ]
    names = ["a", "b", "c", "d" * 200]
    plain = RowEncoder(names).encode(rows)
    vectorised = ArrowRowEncoder(names).encode(text_batch(rows, names))

    assert bytes(plain.data) == bytes(vectorised.data)
    assert [len(row["a"]) for row in decoded(plain)] == [len(row[0]) for row in rows]


def test_rows_without_columns_are_rows_all_the_same() -> None:
    whole = pa.record_batch([pa.array(["a", None, "b"])], names=["a"])
    plain = RowEncoder([]).encode([()] * 3)
    vectorised = ArrowRowEncoder([]).encode(whole.select([]))

    assert bytes(plain.data) == bytes(vectorised.data)
    assert list(plain.ends) == list(vectorised.ends)
    assert decoded(plain) == [{}, {}, {}]


def test_cutting_keeps_to_rows_and_bytes_and_copies_nothing() -> None:
    rows = [(bytearray(b"x" * (i % 50)),) for i in range(1000)]
    encoded = RowEncoder(["a"]).encode(rows)

    pieces = list(cut(encoded, 64, 1200))
    assert b"".join(piece.data for piece in pieces) == encoded.data
    assert sum(piece.rows for piece in pieces) == 1000
    assert all(piece.rows <= 64 and len(piece.data) <= 1200 for piece in pieces)
    assert any(piece.rows < 64 for piece in pieces[:-1])
    assert all(isinstance(p.data, memoryview) and p.data.obj is encoded.data for p in pieces)
    with pytest.raises(LimitError, match="a row of 41 bytes is over the 40"):
        list(cut(encoded, 64, 40))


def test_lengths_around_the_bounds_of_the_tables() -> None:
    """The tables of heads double up to a bound: a value just behind one, in each state of them."""
    encoder = ArrowRowEncoder(["a"])
    for length in (126, 127, 128, 254, 255, 256, 1023, 1024, 2046, 2047, 2048, 2049, 127, 20_000):
        texts = ["x" * length, None, "", "y" * (length - 1)]
        batch = pa.record_batch([pa.array(texts, pa.string())], names=["a"])
        ours = encoder.encode(batch)
        plain = RowEncoder(["a"]).encode([(text,) for text in texts])
        assert bytes(ours.data) == plain.data, length
        assert list(ours.ends) == plain.ends, length
