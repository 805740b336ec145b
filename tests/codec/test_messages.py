"""betterproto's documented behaviour of messages, on installed classes."""

from __future__ import annotations

import copy
import enum
import io
import json
import pickle
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import betterproto
import pytest
from betterproto.lib.google.protobuf import Struct, Value

from streamkit.codec import decode, encode
from streamkit.errors import DecodeError, EncodeError
from streamkit.generated.streamservice import (
    Control,
    Gap,
    Heartbeat,
    JobProgress,
    StartFrom,
    SubscribeRequest,
    Update,
)
from tests.codec.peers import Peers

SNAKE: Any = betterproto.Casing.SNAKE  # mypy takes the functions for what they are


@dataclass(eq=False, repr=False)
class Base(betterproto.Message):
    number: int = betterproto.int32_field(1)


@dataclass(eq=False, repr=False)
class Derived(Base):
    text: str = betterproto.string_field(2)


class Bare(Base):
    """No fields of its own, no dataclass decorator."""


@dataclass(eq=False, repr=False)
class Checked(betterproto.Message):
    number: int = betterproto.int32_field(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_set("number"):
            warnings.warn("number is deprecated", DeprecationWarning, stacklevel=2)


# --- attributes --------------------------------------------------------------------------------


def test_a_field_that_is_not_set_reads_as_its_default() -> None:
    update = Update(topic="a")
    assert (update.topic, update.message, update.sequence) == ("a", "", 0)
    assert update.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    assert update.metadata == {}
    assert JobProgress().exit_code is None


def test_reading_changes_neither_presence_nor_bytes() -> None:
    update = Update(topic="a")
    _ = update.message, update.control, update.metadata
    assert not update.is_set("message") and not update.is_set("control")
    assert encode(update) == b"\x0a\x01a"
    assert encode(Update(control=update.control)) == b""


def test_a_sub_message_made_by_reading_belongs_to_its_parent() -> None:
    request = SubscribeRequest()
    request.options.gaps = True
    request.topics.append("a")
    assert request.is_set("options") and betterproto.serialized_on_wire(request.options)
    assert encode(request) == b"\x0a\x01a\x5a\x02\x10\x01"


def test_serialized_on_wire_follows_the_documentation(every: Peers) -> None:
    message = every.ours.Every()
    assert not betterproto.serialized_on_wire(message.leaf)
    message.leaf.number = 1
    assert betterproto.serialized_on_wire(message.leaf)
    message.leaf.number = 0
    assert betterproto.serialized_on_wire(message.leaf)
    assert encode(message) == b"\x8a\x01\x00"
    message.leaf = every.ours.Leaf()
    assert not betterproto.serialized_on_wire(message.leaf)
    assert encode(message) == b""
    assert betterproto.serialized_on_wire(decode(every.ours.Every, b"\x8a\x01\x00").leaf)


def test_attribute_access_is_plain() -> None:
    update = Update(topic="a")
    assert type(update).__getattribute__ is object.__getattribute__
    assert type(update).__setattr__ is object.__setattr__


def test_positional_arguments_and_unknown_ones() -> None:
    assert Update("a", "b") == Update(topic="a", message="b")
    with pytest.raises(TypeError):
        Update(nothing=1)  # type: ignore[call-arg]  # wrong on purpose


# --- oneof and optional ------------------------------------------------------------------------


def test_only_the_member_that_is_set_can_be_read() -> None:
    start = StartFrom(last=0)
    assert betterproto.which_one_of(start, "place") == ("last", 0)
    with pytest.raises(AttributeError, match="'place' is set to 'last', not 'all'") as caught:
        _ = start.all
    assert caught.value.name == "all"
    start.all = True
    assert betterproto.which_one_of(start, "place") == ("all", True)
    assert not hasattr(start, "last") and not start.is_set("last")
    assert encode(start) == b"\x10\x01"
    assert betterproto.which_one_of(StartFrom(), "place") == ("", None)


def test_of_two_members_given_the_last_one_stays() -> None:
    start = StartFrom(new=True, last=3)
    assert betterproto.which_one_of(start, "place") == ("last", 3)
    assert encode(start) == b"\x18\x03"


def test_a_chosen_default_is_sent() -> None:
    assert encode(StartFrom(last=0)) == b"\x18\x00"
    assert encode(Control(heartbeat=Heartbeat())) == b"\x0a\x00"
    back = decode(Control, b"\x0a\x00")
    assert betterproto.which_one_of(back, "kind") == ("heartbeat", Heartbeat())


def test_an_optional_field_is_none_or_set() -> None:
    progress = JobProgress(exit_code=0)
    assert progress.is_set("exit_code") and not JobProgress().is_set("exit_code")
    assert decode(JobProgress, encode(progress)).exit_code == 0
    progress.exit_code = None
    assert encode(progress) == b"" and not progress.is_set("exit_code")


def test_a_oneof_message_seen_twice_is_merged_and_one_replaced_is_not() -> None:
    gap = encode(Control(gap=Gap(first=1))) + encode(Control(gap=Gap(last=2)))
    assert decode(Control, gap).gap == Gap(first=1, last=2)
    between = encode(Control(gap=Gap(first=1))) + b"\x0a\x00" + encode(Control(gap=Gap(last=2)))
    assert decode(Control, between).gap == Gap(last=2)


# --- parse, dump, load -------------------------------------------------------------------------


def test_parse_merges_into_what_is_there() -> None:
    update = Update(topic="a", metadata={"x": "1"}, control=Control(gap=Gap(first=1)))
    same = update.parse(encode(Update(message="b", metadata={"y": "2"})))
    assert same is update
    assert update == Update(
        topic="a", message="b", metadata={"x": "1", "y": "2"}, control=Control(gap=Gap(first=1))
    )
    assert Update().parse(b"") == Update() and betterproto.serialized_on_wire(Update().parse(b""))


def test_dump_and_load_with_and_without_a_size() -> None:
    stream = io.BytesIO()
    Update(topic="a").dump(stream, delimit=betterproto.SIZE_DELIMITED)  # type: ignore[arg-type]  # wrong on purpose
    Update(topic="b").dump(stream, delimit=True)
    Update(topic="c").dump(stream)
    stream.seek(0)
    assert Update().load(stream, betterproto.SIZE_DELIMITED).topic == "a"
    assert Update().load(stream, betterproto.SIZE_DELIMITED).topic == "b"
    assert Update().load(stream).topic == "c"
    with pytest.raises(DecodeError, match="9 bytes were announced and 0 came"):
        Update().load(stream, 9)
    assert len(Update(topic="a")) == 3


# --- copies and comparisons --------------------------------------------------------------------

FULL = Update(
    topic="a",
    timestamp=datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    metadata={"k": "v"},
    control=Control(gap=Gap(first=1, reason="r")),
)


def test_copies_are_equal_and_of_the_right_depth() -> None:
    message = decode(Update, encode(FULL) + b"\xfa\x01\x01u")
    for other in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert other == message and encode(other) == encode(message)
    assert copy.copy(message).metadata is message.metadata
    deep = copy.deepcopy(message)
    deep.metadata["k"] = "other"
    deep.control.gap.first = 9
    assert message == FULL


def test_equality_takes_unset_for_default_and_nan_for_nan(every: Peers) -> None:
    message = every.ours.Every
    assert Update() == Update(topic="", metadata={}, control=Control())
    assert Update() != Update(topic="a") and Update() != SubscribeRequest()
    nan = float("nan")
    assert message(a_double=nan, doubles=[nan]) == message(a_double=nan, doubles=[nan])
    assert message(maybe_int32=0) != message()


def test_bool_tells_whether_anything_differs_from_the_default() -> None:
    assert not Update() and not Update(topic="") and Update(topic="a")
    assert not decode(Update, b"")


def test_repr_shows_what_is_set_in_the_order_of_numbers() -> None:
    assert repr(Update(sequence=1, topic="a")) == "Update(topic='a', sequence=1)"
    assert list(Update(topic="a").__rich_repr__()) == [("topic", "a", betterproto.PLACEHOLDER)]


def test_messages_are_not_hashable() -> None:
    with pytest.raises(TypeError):
        hash(Update())


# --- JSON --------------------------------------------------------------------------------------


def test_dicts_and_json_go_both_ways() -> None:
    data = FULL.to_dict()
    assert data == {
        "topic": "a",
        "timestamp": "2024-01-02T03:04:05.000006Z",
        "metadata": {"k": "v"},
        "control": {"gap": {"first": "1", "reason": "r"}},
    }
    assert Update().from_dict(data) == Update.from_dict(data) == FULL
    assert Update().from_json(FULL.to_json()) == FULL
    assert Update(topic="a").to_dict(casing=SNAKE) == {"topic": "a"}
    assert Update().to_dict() == {}
    assert Gap().to_dict(include_default_values=True) == {"first": "0", "last": "0", "reason": ""}


def test_json_holds_every_kind_of_field(every: Peers) -> None:
    ours = every.ours
    message = ours.Every(
        some_bytes=b"\x00\xff", colour=ours.Colour.try_value(99), a_double=float("inf"),
        bytes_value=b"w", colours=[ours.Colour.RED, ours.Colour.try_value(5)], int64_s=[1 << 60],
        bytes_by_text={"a": b"b"}, int64_by_int32={-1: 5}, time_by_text={"t": FULL.timestamp},
        leaf_by_text={"l": ours.Leaf(number=1)}, colour_by_text={"c": ours.Colour.RED},
        maybe_colour=ours.Colour.BELOW, spans=[timedelta(seconds=1.5)], times=[FULL.timestamp],
        chosen_leaf=ours.Leaf(), maybe_int32=0, time=datetime(1970, 1, 1, tzinfo=UTC),
        float_by_bool={True: 0.5},
    )  # fmt: skip
    text = message.to_json()
    assert json.loads(text)["colour"] == 99
    assert ours.Every().from_json(text) == message
    assert encode(ours.Every().from_json(text)) == encode(message)


@dataclass(eq=False, repr=False)
class Names(betterproto.Message):
    """Names that protobuf allows and betterproto's own JSON stumbles over."""

    sha_256: str = betterproto.string_field(1)
    x_1_y: int = betterproto.int32_field(2)
    to_dict: str = betterproto.string_field(3)  # type: ignore[assignment]  # the point of it
    struct: Struct = betterproto.message_field(4)  # noqa: RUF009  # betterproto's own way
    leaf: Update = betterproto.message_field(5)  # noqa: RUF009  # betterproto's own way


def test_json_of_odd_names_and_of_what_was_received() -> None:
    struct = Struct.FromString(bytes(Struct(fields={"a": Value(number_value=1)})))
    message = Names("a", 1, "b", struct, Update(topic="t"))
    assert json.loads(message.to_json()) == {
        "sha256": "a", "x1Y": 1, "toDict": "b", "struct": {"a": 1}, "leaf": {"topic": "t"},
    }  # fmt: skip
    assert Names().from_json(message.to_json()) == message
    assert Names.from_dict({"sha_256": "a", "x_1_y": 1}) == Names("a", 1)
    assert struct.to_dict() == json.loads(struct.to_json()) == {"a": 1}
    assert Struct().from_json('{"a": 1}') == struct


def test_one_value_or_an_iterator_is_shown_for_a_list_of_enums(every: Peers) -> None:
    ours = every.ours
    assert ours.Every(colours=ours.Colour.RED).to_dict() == {"colours": ["RED"]}
    assert ours.Every(colours=7).to_dict() == {"colours": ["BLUE"]}
    colours = (one for one in (ours.Colour.RED, ours.Colour.BELOW))
    assert ours.Every(colours=colours).to_dict() == {"colours": ["RED", "BELOW"]}


def test_loading_a_message_of_another_size_is_a_value_error() -> None:
    data = bytes(FULL)
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(ValueError, match=r"truncated|were announced"):
            Update().load(io.BytesIO(data), size)
    assert Update().load(io.BytesIO(data + b"more"), len(data)) == FULL
    stream = io.BytesIO()
    FULL.dump(stream, delimit=True)
    stream.truncate(len(data) - 2)
    stream.seek(0)
    with pytest.raises(ValueError, match="were announced"):
        Update().load(stream, betterproto.SIZE_DELIMITED)


# --- values ------------------------------------------------------------------------------------


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


# --- classes -----------------------------------------------------------------------------------


def test_derived_classes_have_their_own_code() -> None:
    assert encode(Base(number=1)) == b"\x08\x01"
    derived = Derived(number=1, text="a")
    assert encode(derived) == bytes(derived) == b"\x08\x01\x12\x01a"
    assert decode(Derived, encode(derived)) == derived
    assert type(Bare.FromString(b"\x08\x05")) is Bare and bytes(Bare(number=5)) == b"\x08\x05"


def test_a_post_init_of_the_class_still_runs() -> None:
    for _ in range(2):
        with pytest.warns(DeprecationWarning, match="number is deprecated"):
            Checked(number=1)
        assert encode(Checked()) == b""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_messages_made_before_the_codec_came_are_adopted() -> None:
    run(
        """
        from dataclasses import dataclass
        import betterproto

        @dataclass(eq=False, repr=False)
        class Early(betterproto.Message):
            number: int = betterproto.int32_field(1)
            text: str = betterproto.string_field(2)
            one: int = betterproto.int32_field(3, group="g")
            two: int = betterproto.int32_field(4, group="g")

        early, empty = Early(number=1, two=0), Early()
        import streamkit.codec
        assert Early(text="x").number == 0  # installs the class
        assert early.text == "" and early.number == 1, early
        assert betterproto.which_one_of(early, "g") == ("two", 0)
        assert bytes(early) == b"\\x08\\x01\\x20\\x00" and bytes(empty) == b""
        assert not betterproto.serialized_on_wire(empty)
        """
    )


def test_the_rust_codec_makes_no_difference() -> None:
    """A stand-in that would be noticed: betterproto takes whatever has this name."""
    run(
        """
        import sys, types
        fake = types.ModuleType("betterproto_rust_codec")
        def fail(*args):
            raise AssertionError("the Rust codec was used")
        fake.serialize = fake.deserialize = fail
        sys.modules["betterproto_rust_codec"] = fake
        import betterproto
        assert betterproto.Message.__bytes__.__name__ == "__bytes_patch"
        from streamkit.codec import decode, encode
        from streamkit.generated.streamservice import Control, Gap, Update
        message = Update(topic="a", control=Control(gap=Gap(first=1)))
        data = bytes(message)
        assert data == encode(message) == message.SerializeToString()
        assert Update().parse(data) == Update.FromString(data) == decode(Update, data) == message
        """
    )


def test_importing_compiles_nothing_and_the_first_use_does() -> None:
    out = run(
        """
        import linecache
        import streamkit.codec
        from streamkit.generated.streamservice import Update
        assert not [name for name in linecache.cache if name.startswith("<streamkit")]
        Update.FromString(b"")
        print(*sorted(name for name in linecache.cache if name.startswith("<streamkit")))
        """
    )
    assert out == "<streamkit decode streamkit.generated.streamservice.Update>"


# --- whatever was imported first ---------------------------------------------------------------

STRICT = """
from streamkit.errors import EncodeError
assert bytes(cls(**{field: 5})) == bytes(cls.FromString(wire)) == wire
try:
    bytes(cls(**{field: 1 << 70}))
except EncodeError as error:
    assert "out of range" in str(error)
else:
    raise AssertionError("encoded what no uint64 can hold")
"""
GENERATED = """
from streamkit.generated.streamservice import Position as cls
field, wire = "sequence", bytes([16, 5])
"""
OWN = """
from dataclasses import dataclass
import betterproto

@dataclass(eq=False, repr=False)
class Own(betterproto.Message):
    number: int = betterproto.uint64_field(1)

cls, field, wire = Own, "number", bytes([8, 5])
early = bytes(Own(number=1))
"""


@pytest.mark.parametrize(
    "text",
    [
        GENERATED,
        OWN + "import streamkit.generated.grpc.health.v1",
        OWN + "import streamkit; streamkit.Server",
        OWN + "import streamkit; streamkit.Channel",
        OWN + "import streamkit; streamkit.AsyncClient",
        OWN + "import streamkit; streamkit.Client",
        "import streamkit; streamkit.GrpcServer" + OWN,
    ],
)
def test_classes_are_the_same_whatever_was_imported_first(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{text}\n{STRICT}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Plain(enum.IntEnum):
    A = 0


@dataclass(eq=False, repr=False)
class Counted(betterproto.Message):
    kind: int = betterproto.enum_field(1)


@dataclass(eq=False, repr=False)
class Named(betterproto.Message):
    kind: Plain = betterproto.enum_field(1)  # noqa: RUF009  # as betterproto declares them


@dataclass(eq=False, repr=False)
class Nameless(betterproto.Message):
    kind: betterproto.Enum = betterproto.enum_field(1)  # noqa: RUF009  # as above


def test_an_enum_of_another_kind_is_refused_with_its_name() -> None:
    for cls, shown in ((Counted, "int"), (Named, "Plain")):
        with pytest.raises(TypeError, match=f"kind: {shown} is no betterproto.Enum"):
            decode(cls, b"\x08\x01")
    assert decode(Nameless, b"\x08\x05").kind == 5, "betterproto's own, which has no members"
    wrong: Any = betterproto.Enum
    with pytest.raises(TypeError, match="Enum is no message class"):
        decode(wrong, b"")
