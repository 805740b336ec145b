"""betterproto's documented behaviour of messages, on installed classes."""

from __future__ import annotations

import copy
import io
import json
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import betterproto
import pytest
from betterproto.lib.google.protobuf import Struct, Value

from streamkit.codec import decode, encode
from streamkit.errors import DecodeError
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
from tests.codec.test_classes import SNAKE

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


def test_lists_of_one_length_are_not_equal_for_that(every: Peers) -> None:
    message, nan = every.ours.Every, float("nan")
    assert message(doubles=[nan, 1.0]) == message(doubles=[nan, 1.0])
    assert message(doubles=[nan, 1.0]) != message(doubles=[nan, 2.0])
    assert message(doubles=[nan]) != message(doubles=[nan, 2.0])


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
