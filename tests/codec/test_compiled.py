"""The generated text: it reads what is usual by itself, and a mistake in it cannot hide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import betterproto
import pytest

from streamkit.codec import decode, decoder_for, encode, encoder_for
from streamkit.codec.compiled import emit_decode
from streamkit.codec.plan import plan_of
from streamkit.generated.streamservice import Position
from tests.codec.mutations import varint
from tests.codec.peers import Peers

LEAF = b"\x8a\x01\x05\x08\x07\x12\x01a"
UNKNOWN = b"\xc0\x3e\x96\x01\xca\x3e\x03abc\xdb\x3e\x08\x01\xdc\x3e"
FAR = b"\xc2\xfa\x01\x01x"  # number 4000


def refuse(*_: Any) -> Any:
    raise AssertionError("the exact codec was asked")


def alone(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Take the exact codec away from a compiled function; return the names that it uses."""
    names: dict[str, Any] = function.__globals__
    monkeypatch.setitem(names, "exact", refuse)
    return names


@pytest.mark.parametrize(
    "data",
    [
        b"\x18\x05" + LEAF,
        b"\x18\x05" + LEAF + UNKNOWN,
        UNKNOWN + b"\x18\x05" + LEAF,
        b"\x18\x05" + UNKNOWN + LEAF,
        LEAF + UNKNOWN + b"\xfa\x7f\x05" + FAR,
        b"\x8a\x01" + varint(len(UNKNOWN) + 4) + b"\x08\x05" + UNKNOWN + b"\x10\x01",
        LEAF + b"\x18\x05",
        b"",
    ],
)
def test_usual_messages_need_no_exact_decoder(
    every: Peers, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    ours, google = every.ours.Every, every.google.Every
    expected = decode(ours, data)
    alone(decoder_for(ours), monkeypatch)
    alone(encoder_for(ours), monkeypatch)
    found = decode(ours, data)
    assert found == expected and found._unknown_fields == expected._unknown_fields
    assert google.FromString(encode(found)) == google.FromString(data)


def test_unknown_fields_in_two_places_keep_their_order(every: Peers) -> None:
    data = b"\xc0\x3e\x01" + b"\x18\x05" + b"\xc0\x3e\x02" + LEAF + b"\xc8\x3e\x03"
    message = decode(every.ours.Every, data)
    assert message._unknown_fields == b"\xc0\x3e\x01\xc0\x3e\x02\xc8\x3e\x03"
    assert (message.an_int32, message.leaf.number) == (5, 7)


@pytest.mark.parametrize("fault", [NameError, KeyError, AttributeError, AssertionError])
def test_a_mistake_in_the_text_is_seen(
    every: Peers, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def broken(*_: Any) -> Any:
        raise fault

    names = decoder_for(every.ours.Every).__globals__
    monkeypatch.setitem(names, "unknown", broken)
    with pytest.raises(fault):
        decode(every.ours.Every, UNKNOWN)
    monkeypatch.delitem(names, "unknown")
    with pytest.raises(NameError):
        decode(every.ours.Every, UNKNOWN)


def test_a_mistake_in_an_encoder_is_seen(every: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    message = every.ours.Every(time=datetime.now(UTC))
    encode(message)
    names = encoder_for(every.ours.Every).__globals__
    monkeypatch.delitem(names, "timestamp_bytes")
    with pytest.raises(NameError):
        encode(message)


class Old:
    class State(betterproto.Enum):
        UNKNOWN = 0
        OPEN = 1
        DONE = 2


class New:
    class State(betterproto.Enum):
        UNKNOWN = 0
        BROKEN = 1
        GONE = 2


def message_class(title: str, **fields: tuple[Any, Any]) -> Any:
    columns = [(name, hint, made) for name, (hint, made) in fields.items()]
    made = dataclasses.make_dataclass(title, columns, bases=(betterproto.Message,), eq=False)
    made.__module__ = __name__
    return made


def test_classes_of_one_name_are_kept_apart() -> None:
    orders = message_class(
        "Orders",
        states=(dict[str, Old.State], betterproto.map_field(1, "string", "enum")),
        newer=(New.State, betterproto.enum_field(2)),
        later=(dict[str, New.State], betterproto.map_field(3, "string", "enum")),
        old=(list[Old.State], betterproto.enum_field(4)),
    )
    inner: Any = [
        message_class("Item", **{f"f{n}": (int, betterproto.int32_field(n))}) for n in (1, 2)
    ]
    holder = message_class(
        "Holder",
        one=(inner[0], betterproto.message_field(1)),
        two=(inner[1], betterproto.message_field(2)),
        many=(dict[str, inner[0]], betterproto.map_field(3, "string", "message")),
        others=(dict[str, inner[1]], betterproto.map_field(4, "string", "message")),
    )
    order = orders({"a": Old.State.DONE}, New.State.BROKEN, {"b": New.State.GONE}, [Old.State.OPEN])
    found = decode(orders, encode(order))
    assert found.states["a"] is Old.State.DONE and found.later["b"] is New.State.GONE
    assert found.newer is New.State.BROKEN and found.old == [Old.State.OPEN]
    held = holder(inner[0](5), inner[1](6), {"a": inner[0](7)}, {"b": inner[1](8)})
    again = decode(holder, encode(held))
    assert again == held
    assert (type(again.many["a"]), type(again.others["b"])) == (inner[0], inner[1])


@pytest.mark.parametrize(
    "title", ["pack", "varint", "join", "V", "Odd", "tagged_enum", "H10", "a b"]
)
def test_a_class_may_be_called_like_a_name_of_the_text(title: str) -> None:
    inner: Any = message_class(title, number=(int, betterproto.int32_field(1)))
    outer = message_class(
        "Outer",
        numbers=(list[int], betterproto.int32_field(1)),
        more=(list[int], betterproto.sint32_field(2)),
        text=(str, betterproto.string_field(3)),
        by_text=(dict[str, inner], betterproto.map_field(4, "string", "message")),
        one=(inner, betterproto.message_field(5)),
        state=(New.State, betterproto.enum_field(6)),
    )
    message = outer([1, 300], [-1], "a", {"x": inner(5)}, inner(6), New.State.GONE)
    assert decode(outer, encode(message)) == message


def test_a_field_may_be_called_like_a_name_of_the_constructor() -> None:
    names = ("self", "_self", "_d", "_unset", "values", "unset")
    cls = message_class(
        "Named", **{name: (int, betterproto.int32_field(n)) for n, name in enumerate(names, 1)}
    )
    for _ in range(2):  # the second time with the constructor that was written for the class
        assert bytes(cls(_d=5, values=6)) == b"\x18\x05\x28\x06"
    assert bytes(cls(1, 2, 3, 4, 5, 6)) == b"\x08\x01\x10\x02\x18\x03\x20\x04\x28\x05\x30\x06"


def test_a_map_of_wrapped_floats() -> None:
    cls = message_class(
        "Floats", floats=(dict[str, float | None], betterproto.map_field(1, "string", "message"))
    )
    message = cls({"a": 1.5, "b": 0.0})
    assert decode(cls, encode(message)) == message
    # As a FloatValue, which is read in either width.
    assert decode(cls, b"\x0a\x0a\x0a\x01a\x12\x05\x0d\x00\x00\xc0\x3f").floats == {"a": 1.5}


def test_the_example_in_the_documentation_is_what_is_made() -> None:
    source, _ = emit_decode.decode_source(plan_of(Position), decode, decode, lambda *_: None)
    shown = "".join(f"    {line}" if line.strip() else line for line in source.splitlines(True))
    assert shown.rstrip() in (emit_decode.__doc__ or "")
