"""Values of fields: what is taken, what is refused, and what stays of the unknown."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import betterproto
import pytest
from betterproto.lib.google.protobuf import Struct, Value

from streamkit.codec import decode, encode
from streamkit.errors import DecodeError, EncodeError
from streamkit.generated.streamservice import Update
from tests.codec.mutations import varint
from tests.codec.peers import Peers


@dataclass(eq=False, repr=False)
class Counted(betterproto.Message):
    """As it is generated for map<string, google.protobuf.UInt64Value>."""

    counts: dict[str, int | None] = betterproto.map_field(  # noqa: RUF009  # its own way
        1, betterproto.TYPE_STRING, betterproto.TYPE_MESSAGE
    )


@pytest.fixture
def collecting() -> Iterator[None]:
    before = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("an_int32", 1 << 31, "2147483648 is out of range for int32"),
        ("an_int32", -(1 << 31) - 1, "out of range"),
        ("an_int64", 1 << 63, "out of range"),
        ("a_uint32", -1, "out of range"),
        ("a_uint64", 1 << 64, "out of range"),
        ("a_sint32", 1 << 31, "out of range"),
        ("a_sint64", -(1 << 63) - 1, "out of range"),
        ("a_fixed32", 1 << 32, "out of range"),
        ("a_sfixed64", 1 << 63, "out of range"),
        ("colour", 1 << 31, "out of range"),
        ("an_int32", 1.5, "not an integer"),
        ("a_string", b"x", "not a str"),
        ("a_string", "\ud800", "surrogate"),
        ("some_bytes", "x", "not bytes"),
        ("a_bool", "yes", "not a bool"),
        ("a_double", "1", "not a number"),
        ("time", 5, "not a datetime"),
        ("span", 5, "not a timedelta"),
        ("leaf", Update(), "not Leaf"),
        ("strings", "abc", "not a list"),
        ("strings", ["a", 1], "not a str"),
        ("int32s", [1, 1 << 31], "out of range"),
        ("text_by_text", {"a": None}, "not a str"),
        ("text_by_text", [], "not a dict"),
        ("int64_by_int32", {1 << 31: 1}, "out of range"),
        ("uint32_value", -1, "out of range"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    every: Peers, field: str, value: Any, reason: str
) -> None:
    # betterproto calls int32s int32_s.
    names = every.ours.Every._betterproto.meta_by_field_name
    name = field if field in names else field.removesuffix("s") + "_s"
    with pytest.raises(EncodeError, match=reason) as caught:
        encode(every.ours.Every(**{name: value}))
    assert caught.value.path.startswith(f"Every.{name}")


def test_a_naive_datetime_is_utc_everywhere() -> None:
    naive, aware = datetime(2024, 1, 2, 3, 4, 5, 6), datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    left, right = Update(timestamp=naive), Update(timestamp=aware)
    assert encode(left) == encode(right)
    assert left.to_dict() == right.to_dict()
    assert left == right and decode(Update, encode(left)).timestamp == aware
    elsewhere = aware.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert encode(Update(timestamp=elsewhere)) == encode(right)
    assert Update.from_dict({"timestamp": "2024-01-02T03:04:05.000006"}) == right


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        (0, 1_999, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (1_700_000_000, 123_456_999, datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)),
        (-1, 999_999_999, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (1 << 62, 0, datetime.max.replace(tzinfo=UTC)),
        (-(1 << 62), 0, datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_nanoseconds_are_cut_and_times_out_of_range_are_clamped(
    every: Peers, seconds: int, nanos: int, expected: datetime
) -> None:
    google = every.google.Every()
    google.time.seconds, google.time.nanos = seconds, nanos
    assert decode(every.ours.Every, google.SerializeToString()).time == expected


def test_the_epoch_that_was_set_is_told_from_no_time_at_all() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert encode(Update(timestamp=epoch)) == b"\x1a\x00" and encode(Update()) == b""
    assert decode(Update, b"\x1a\x00").is_set("timestamp")


def test_what_people_pass_instead_of_the_exact_type_is_taken(every: Peers) -> None:
    ours = every.ours
    left = ours.Every(colour=7, a_bool=1, a_double=2, strings=("a",), a_float=1e300)
    right = ours.Every(colour=ours.Colour.BLUE, a_bool=True, a_double=2.0, strings=["a"])
    right.a_float = float("inf")
    assert encode(left) == encode(right)


def test_plain_values_in_a_struct_are_encoded() -> None:
    struct = Struct().from_dict({"a": [1, None, True, "x", {"b": 2.5}]})
    back = decode(Struct, encode(struct))
    values = back.fields["a"].list_value.values
    assert values[0] == Value(number_value=1.0) and values[2] == Value(bool_value=True)
    assert values[4].struct_value.fields["b"].number_value == 2.5


def test_unknown_enum_numbers_survive(every: Peers) -> None:
    message = decode(every.ours.Every, b"\x80\x01\xfb\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    assert message.colour == -5 and message.colour.name is None
    assert isinstance(message.colour, every.ours.Colour)
    assert encode(message) == b"\x80\x01\xfb\xff\xff\xff\xff\xff\xff\xff\xff\x01"


def test_unknown_fields_are_kept_and_written_back() -> None:
    data = b"\x0a\x01a\xfa\x7f\x03xyz"
    assert encode(decode(Update, data)) == data
    scattered = b"\xf8\x7f\x01\x0a\x01a\xfa\x7f\x01x\x12\x01b"
    assert encode(decode(Update, scattered)) == b"\x0a\x01a\x12\x01b\xf8\x7f\x01\xfa\x7f\x01x"


def test_a_wrapper_in_a_map_holds_all_that_a_uint64_can() -> None:
    for number in (1 << 63, (1 << 64) - 1):
        wrapped = b"\x08" + varint(number)
        entry = b"\x0a\x01a\x12" + varint(len(wrapped)) + wrapped
        assert encode(Counted(counts={"a": number})) == b"\x0a" + varint(len(entry)) + entry
    for number in (1 << 64, -(1 << 63) - 1):
        with pytest.raises(EncodeError, match="out of range"):
            encode(Counted(counts={"a": number}))


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("size", [1, 100_000])
def test_the_garbage_collector_is_on_or_off_as_before(size: int) -> None:
    unknown = b"\xf8\x7f\x01" * size
    for data in (unknown, unknown + b"\x0a\x01\xff"):
        with suppress(DecodeError):
            decode(Update, data)
        assert gc.isenabled()
        gc.disable()
        with suppress(DecodeError):
            decode(Update, data)
        assert not gc.isenabled()
        gc.enable()
