"""JSON as protobuf defines it: with google.protobuf beside, and by the rules one by one."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from betterproto.lib.google.protobuf import (
    Any as AnyMessage,
)
from betterproto.lib.google.protobuf import (
    Duration,
    FieldMask,
    Int64Value,
    ListValue,
    NullValue,
    StringValue,
    Struct,
    Timestamp,
    Value,
)
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamkit.codec import decode, encode, from_json, to_json
from streamkit.errors import DecodeError, EncodeError
from streamkit.generated.streamservice import PayloadFormat, QueryRequest, Update
from tests.codec.mutations import fill
from tests.codec.peers import Peers, difference, plain_google

# --- beside google.protobuf --------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_what_one_writes_the_other_reads(described: Peers, seed: int) -> None:
    google, ours = described.google.Every, described.ours.Every
    message = google()
    rng = random.Random(seed)
    fill(rng, message, rng.choice((0.05, 0.2, 0.5)))
    read = decode(ours, message.SerializeToString())
    try:
        text = json_format.MessageToJson(message)
    except (json_format.SerializeToJsonError, ValueError, TypeError) as error:
        # An Any of no type, a Value that is not finite: no JSON for either of us. A time out of
        # range was clamped when it was decoded.
        with suppress(EncodeError):
            to_json(read)
            assert "Timestamp is not valid" in str(error)
        return
    try:
        written = to_json(read)
    except EncodeError as error:
        # The documentation calls it an error; google.protobuf for Python writes null.
        assert "a Value without a kind" in error.reason
        return
    # Not the message itself: of a NullValue that is not 0 there is no more than null in JSON.
    theirs = plain_google(json_format.Parse(text, google()))
    assert not difference(plain_google(json_format.Parse(written, google())), theirs)
    for one in (text, written):
        mine = google.FromString(encode(from_json(ours, one)))
        assert not difference(plain_google(mine), theirs)


SPACED = r"""
null true false 0 1 -1 1.0 1.5 -0.0 1e2 1E+2 1e400 2147483647 2147483648 -2147483648 -2147483649
4294967295 4294967296 9223372036854775807 9223372036854775808 18446744073709551615
18446744073709551616 -9223372036854775809 0.1 3.5e38 "" "0" "1" "1.0" "1.5" "1e2" "-1" "0x10"
"NaN" "Infinity" "-Infinity" "nan" "inf" "true" "a" "YQ==" "YQ" "_-8=" "_-8" "+/8=" "Y" "COLOUR_RED"
"RED" "colour_red" "7" [] [1] ["a"] [null] {} {"a":1} {"a":null} {"number":1} {"numbers":1} [[1]]
[{}] "1970-01-01T00:00:00Z" "1970-01-01T00:00:00.5Z" "1970-01-01t00:00:00z" "1970-01-01T00:00:00"
"1970-01-01T00:00:00+01:00" "0001-01-01T00:00:00+01:00" "9999-12-31T23:59:59-01:00"
"1970-13-01T00:00:00Z" "1970-01-01T24:00:00Z" "1970-01-01T00:00:60Z" "1s" "1.5s" "-1.5s" "1"
".5s" "315576000001s" "\u00fc" {"1":1} {"true":1.5} {"x":"y"} {"1":"1"} {"a":{}} {"1":{}}
{"@type":"type.googleapis.com/described.Leaf","number":5} {"@type":"x"} {"number":1,"number":2}
{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"} {"a":"1970-01-01T00:00:00Z"}
"""
VALUES = SPACED.split()


def test_every_field_takes_the_same_values(described: Peers) -> None:
    google, ours = described.google.Every, described.ours.Every
    agreed = stricter = 0
    for field in google.DESCRIPTOR.fields:
        for value in VALUES:
            shapes = (value, f"[{value}]", f"[{value},{value}]")
            for shape in shapes if field.is_repeated else shapes[:1]:
                text = f'{{"{field.json_name}":{shape}}}'
                try:
                    theirs = json_format.Parse(text, google())
                except (json_format.ParseError, ValueError, OverflowError):
                    theirs = None
                try:
                    mine = from_json(ours, text)
                except DecodeError as error:
                    assert error.path.startswith("Every"), text
                    stricter += theirs is not None
                    continue
                assert theirs is not None, f"accepted what google.protobuf refuses: {text}"
                again = google.FromString(encode(mine))
                assert not difference(plain_google(again), plain_google(theirs)), text
                shown = json_format.MessageToJson(again)
                written = json_format.Parse(to_json(mine), google())
                assert written == json_format.Parse(shown, google()), text
                agreed += 1
    # What only we refuse, google.protobuf lets pass in Python alone: texts that are no base64, ...
    assert agreed > 2000 and stricter < 200, (agreed, stricter)


NULL = NullValue.try_value(0)

# --- the rules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("", "Every", "not JSON"),
        ("[", "Every", "not JSON"),
        ('{"anInt32": 1,}', "Every", "not JSON"),
        ('{"aString": "a\nb"}', "Every", "not JSON"),
        ('{"anInt32": 01}', "Every", "not JSON"),
        ('{"aDouble": NaN}', "Every", "NaN is not JSON"),
        ("[]", "Every", "a list is not an object"),
        ("null", "Every", "null is not an object"),
        ('{"nobody": 1}', "Every", 'there is no field "nobody"'),
        ('{"aStrin": ""}', "Every", 'there is no field "aStrin"; did you mean "aString"?'),
        ('{"anInt32": 1, "anInt32": 2}', "Every", "there twice"),
        ('{"anInt32": 1, "an_int32": 2}', "Every.an_int32", "twice, under two names"),
        ('{"chosenInt32": 1, "chosenString": ""}', "Every.chosenString", "only one of choice"),
        ('{"anInt32": 1.5}', "Every.anInt32", "1.5 is not an integer"),
        ('{"anInt32": true}', "Every.anInt32", "true is not an integer"),
        ('{"anInt32": ""}', "Every.anInt32", '"" is not an integer'),
        ('{"anInt32": " 1"}', "Every.anInt32", '" 1" is not an integer'),
        ('{"anInt32": 1e1000000000}', "Every.anInt32", "out of range"),
        ('{"aUint64": -1}', "Every.aUint64", "-1 is out of range for uint64"),
        ('{"aFloat": 3.5e38}', "Every.aFloat", "out of range for float"),
        ('{"aDouble": 1e400}', "Every.aDouble", "out of range for double"),
        ('{"aDouble": "1e400"}', "Every.aDouble", "out of range for double"),
        ('{"aBool": "true"}', "Every.aBool", '"true" is neither true nor false'),
        ('{"aBool": 1}', "Every.aBool", "1 is neither true nor false"),
        ('{"aString": 1}', "Every.aString", "1 is not a string"),
        ('{"aString": "\\ud800"}', "Every.aString", "surrogate"),
        ('{"aString": "\\udc00\\ud800"}', "Every.aString", "surrogate"),
        ('{"someBytes": "Y"}', "Every.someBytes", "not base64"),
        ('{"someBytes": "Y!=="}', "Every.someBytes", "not base64"),
        ('{"someBytes": "YQ="}', "Every.someBytes", "padding"),
        ('{"colour": "NO"}', "Every.colour", 'Colour has no "NO"'),
        ('{"colour": 1.5}', "Every.colour", "1.5 is not an integer"),
        ('{"leaf": {"number": "x"}}', "Every.leaf.number", '"x" is not an integer'),
        ('{"leaves": [{}, {"number": []}]}', "Every.leaves[1].number", "a list is not an integer"),
        ('{"leaves": {}}', "Every.leaves", "an object is not a list"),
        ('{"strings": ["a", null]}', "Every.strings[1]", "null stands in a list"),
        ('{"textByText": {"a": null}}', 'Every.textByText["a"]', "null stands in a list or map"),
        ('{"textByText": {"a": 1}}', 'Every.textByText["a"]', "1 is not a string"),
        ('{"textByText": {"a": "", "a": ""}}', "Every.textByText", "there twice"),
        ('{"int64ByInt32": {"1.5": 1}}', 'Every.int64ByInt32["1.5"]', "not an integer"),
        ('{"int64ByInt32": {"1": 1, "1.0": 1}}', 'Every.int64ByInt32["1.0"]', "there twice"),
        ('{"floatByBool": {"True": 1}}', 'Every.floatByBool["True"]', "neither true nor false"),
        ('{"time": "1970-01-01T00:00:00"}', "Every.time", "not a time like"),
        ('{"time": "1970-01-01T00:00:00.0000000001Z"}', "Every.time", "not a time like"),
        ('{"time": "1970-02-30T00:00:00Z"}', "Every.time", "not a time that exists"),
        ('{"time": "0000-01-01T00:00:00Z"}', "Every.time", "not a time that exists"),
        ('{"time": "0001-01-01T00:00:00+00:01"}', "Every.time", "between the years 1 and 9999"),
        ('{"time": "1970-01-01T00:00:00+24:00"}', "Every.time", "no such offset"),
        ('{"time": 0}', "Every.time", "0 is not a string"),
        ('{"span": "1"}', "Every.span", "not a duration like"),
        ('{"span": "-315576000001s"}', "Every.span", "ten thousand years"),
        ('{"struct": []}', "Every.struct", "a list is not an object"),
        ('{"struct": {"a": ["\\ud800"]}}', 'Every.struct["a"][0]', "surrogate"),
        ('{"listValue": {}}', "Every.listValue", "an object is not a list"),
        ('{"value": 1e400}', "Every.value", "out of range"),
        ('{"nullValue": "NO"}', "Every.nullValue", 'NullValue has no "NO"'),
        ('{"any": {"a": 1}}', "Every.any", "has to have @type"),
        ('{"any": {"@type": "described.Leaf"}}', "Every.any", "no class for"),
        ('{"any": {"@type": "x/described.Nobody"}}', "Every.any", "no class for"),
        ('{"any": {"@type": "x/described.Leaf", "number": "a"}}', "Every.any.number", "integer"),
        ('{"any": {"@type": "x/google.protobuf.Duration"}}', "Every.any", "@type and value alone"),
        (
            '{"any": {"@type": "x/google.protobuf.Duration", "value": 1}}',
            "Every.any.value",
            "1 is not a string",
        ),
        (b'{"aString": "\xff"}', "Every", "not valid UTF-8"),
        ("[" * 100_000, "Every", "nested too deeply"),
        ('{"value": ' + "[" * 200 + "]" * 200 + "}", "Every.value", "nested too deeply"),
        ('{"self": ' * 101 + "{}" + "}" * 101, "Every.self", "nested too deeply"),
    ],
)
def test_a_refusal_names_the_field(
    described: Peers, text: str | bytes, path: str, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        from_json(described.ours.Every, text)
    assert reason in caught.value.reason
    assert caught.value.path.startswith(path) if "deeply" in reason else caught.value.path == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"an_int32": 5}', {"an_int32": 5}),
        ('{"anInt32": 1e2}', {"an_int32": 100}),
        ('{"anInt32": "1e2"}', {"an_int32": 100}),
        ('{"anInt32": -0}', {"an_int32": 0}),
        ('{"anInt64": 9007199254740993.0}', {"an_int64": 9007199254740993}),
        ('{"aUint64": "18446744073709551615"}', {"a_uint64": 2**64 - 1}),
        ('{"aFloat": "Infinity"}', {"a_float": float("inf")}),
        ('{"aDouble": "-1.5"}', {"a_double": -1.5}),
        ('{"someBytes": "_-8"}', {"some_bytes": b"\xff\xef"}),
        ('{"someBytes": "/+8="}', {"some_bytes": b"\xff\xef"}),
        ('{"time": "1970-01-01T01:00:00.000001+01:00"}', {
            "time": datetime(1970, 1, 1, 0, 0, 0, 1, UTC)
        }),
        ('{"span": "-1.5s"}', {"span": timedelta(seconds=-1.5)}),
        ('{"span": "315576000000.5s"}', {"span": timedelta(seconds=315576000000.5)}),
        ('{"int32Value": 0, "stringValue": null}', {"int32_value": 0}),
        ('{"leaf": null, "strings": null, "textByText": null, "chosenLeaf": null}', {}),
        ('{"maybeInt32": null, "anInt32": null, "time": null, "struct": null, "any": null}', {}),
        ('{"chosenInt32": null, "chosenString": ""}', {"chosen_string": ""}),
        ('{"self": {"self": {}}}', None),
        ('{"maybeInt32": 0}', {"maybe_int32": 0}),
        ('{"from": 5}', {"from_": 5}),
        (' \n{"aString":"\\u0000\\ud83d\\ude80/\\/"}\t', {"a_string": "\0🚀//"}),
    ],
)  # fmt: skip
def test_the_forms_that_are_read(
    described: Peers, text: str, expected: dict[str, Any] | None
) -> None:
    ours = described.ours.Every
    found = from_json(ours, text)
    if expected is not None:
        assert found == ours(**expected) and encode(found) == encode(ours(**expected))
    assert from_json(ours, to_json(found)) == found


def test_the_form_that_is_written(described: Peers) -> None:
    ours = described.ours
    message = ours.Every(
        an_int32=1, an_int64=-(2**63), a_float=0.1, a_double=1e21, some_bytes=b"\xff\xef",
        colour=ours.Colour.RED, colours=[ours.Colour.BLUE, ours.Colour.try_value(9)],
        time=datetime(1, 1, 1, 0, 0, 0, 120_000, UTC), span=timedelta(seconds=-1, microseconds=-1),
        int64_value=5, bool_value=False, maybe_int32=0, chosen_leaf=ours.Leaf(),
        int64_by_int32={-1: 5}, float_by_bool={True: 0.5}, a_string="ü\n", from_=1,
        colour_by_text={"a": ours.Colour.RED}, floats=[float("inf"), float("nan"), 3.4e38, 1e300],
    )  # fmt: skip
    assert json.loads(to_json(message)) == {
        "anInt32": 1, "anInt64": "-9223372036854775808", "aFloat": 0.1, "aDouble": 1e21,
        "someBytes": "/+8=", "colour": "COLOUR_RED", "colours": ["COLOUR_BLUE", 9],
        "time": "0001-01-01T00:00:00.120Z", "span": "-1.000001s", "int64Value": "5",
        "boolValue": False, "maybeInt32": 0, "chosenLeaf": {}, "int64ByInt32": {"-1": "5"},
        "floatByBool": {"true": 0.5}, "aString": "ü\n", "from": 1,
        "colourByText": {"a": "COLOUR_RED"}, "floats": ["Infinity", "NaN", 3.4e38, "Infinity"],
    }  # fmt: skip
    assert to_json(Update(topic="ü", sequence=1)) == '{"topic":"ü","sequence":"1"}'
    assert to_json(ours.Every()) == "{}"


@pytest.mark.parametrize(
    ("field", "value", "path", "reason"),
    [
        ("an_int32", 1 << 31, "Every.an_int32", "out of range"),
        ("an_int32", "1", "Every.an_int32", "not an integer"),
        ("a_string", "\ud800", "Every.a_string", "surrogate"),
        ("a_string", 5, "Every.a_string", "not a string"),
        ("a_bool", "x", "Every.a_bool", "neither true nor false"),
        ("some_bytes", "x", "Every.some_bytes", "not bytes"),
        ("a_double", "x", "Every.a_double", "not a number"),
        ("time", 5, "Every.time", "not a datetime"),
        ("span", timedelta(days=4_000_000), "Every.span", "ten thousand years"),
        ("strings", ["a", 1], "Every.strings[1]", "not a string"),
        ("text_by_text", {"a": 1}, "Every.text_by_text['a']", "not a string"),
        ("value", Value(number_value=float("nan")), "Every.value", "NaN has no JSON"),
        ("value", decode(Value, b""), "Every.value", "without a kind"),
        ("any", AnyMessage("x/no.Body", b""), "Every.any", "no class for"),
        ("any", AnyMessage("", b"x"), "Every.any", "no class for"),
        ("any", AnyMessage("x/described.Leaf", b"\xff"), "Every.any", "is no described.Leaf"),
    ],
)
def test_what_json_cannot_hold(
    described: Peers, field: str, value: Any, path: str, reason: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        to_json(described.ours.Every(**{field: value}))
    assert (caught.value.path, reason in caught.value.reason) == (path, True), caught.value


def test_messages_with_a_form_of_their_own() -> None:
    for message, text in (
        (
            Struct(fields={"a": Value(number_value=1.5), "b": Value(null_value=NULL)}),
            None,
        ),
        (from_json(Struct, '{"a":[1,"x",null,{"b":true}],"c":-0.0}'), None),
        (from_json(Value, "[[],{}]"), "[[],{}]"),
        (from_json(ListValue, "[1]"), "[1]"),
        (FieldMask(paths=["a_b.c", "d"]), '"aB.c,d"'),
        (FieldMask(), '""'),
        (Timestamp(seconds=1, nanos=1), '"1970-01-01T00:00:01.000000001Z"'),
        (Duration(seconds=-1, nanos=-5_000_000), '"-1.005s"'),
        (Int64Value(value=5), '"5"'),
        (StringValue(value="x"), '"x"'),
        (AnyMessage(), "{}"),
    ):
        written = to_json(message)
        assert text is None or written == text
        assert to_json(from_json(type(message), written)) == written
    assert to_json(from_json(Value, "null")) == "null"
    for bad in ("a_3_b", "aB", "a__b", "a_"):
        with pytest.raises(EncodeError):
            to_json(FieldMask(paths=[bad]))
    with pytest.raises(DecodeError):
        from_json(FieldMask, '"a_b"')
    for wrong in (Timestamp(nanos=-1), Timestamp(seconds=1 << 40), Duration(1, -1)):
        with pytest.raises(EncodeError):
            to_json(wrong)


def test_an_any_shows_its_message(described: Peers) -> None:
    ours = described.ours
    leaf = AnyMessage("type.googleapis.com/described.Leaf", encode(ours.Leaf(number=5)))
    inside = AnyMessage("type.googleapis.com/google.protobuf.Any", encode(leaf))
    text = to_json(ours.Every(any=inside))
    assert json.loads(text) == {
        "any": {
            "@type": "type.googleapis.com/google.protobuf.Any",
            "value": {"@type": "type.googleapis.com/described.Leaf", "number": 5},
        }
    }
    assert from_json(ours.Every, text).any == inside
    swapped = '{"any": {"number": 5, "@type": "type.googleapis.com/described.Leaf"}}'
    assert from_json(ours.Every, swapped).any == leaf


def test_unknown_names_are_passed_over_if_asked_for(described: Peers) -> None:
    ours = described.ours
    text = """{"new": {"a": [1]}, "anInt32": 1, "colour": "NEW", "colours": ["NEW", "COLOUR_RED"],
               "colourByText": {"a": "NEW", "b": "COLOUR_RED"}, "leaf": {"new": null}}"""
    found = from_json(ours.Every, text, ignore_unknown=True)
    assert found == ours.Every(
        an_int32=1, colours=[ours.Colour.RED], colour_by_text={"b": ours.Colour.RED},
        leaf=from_json(ours.Leaf, "{}"),
    )  # fmt: skip
    with pytest.raises(DecodeError):
        from_json(ours.Every, '{"anInt32": "x"}', ignore_unknown=True)


def test_names_come_from_the_schema() -> None:
    request = QueryRequest(query="q", format=PayloadFormat(PayloadFormat.ARROW))
    assert json.loads(to_json(request)) == {"query": "q", "format": "PAYLOAD_FORMAT_ARROW"}
    assert from_json(QueryRequest, to_json(request)) == request


def test_without_the_schema_every_spelling_is_read(every: Peers) -> None:
    ours = every.ours
    # betterproto calls int32s int32_s, which leaves several spellings to be the right one.
    for name in ("int32s", "int32_s", "int32S"):
        assert from_json(ours.Every, f'{{"{name}": [1]}}').int32_s == [1]
    for name in ("RED", "COLOUR_RED", "1"):
        assert from_json(ours.Every, f'{{"colour": "{name}"}}').colour is ours.Colour.RED
    # The number of an enum is right whatever its members are called.
    assert to_json(ours.Every(colour=ours.Colour.RED)) == '{"colour":1}'


# --- bounds ------------------------------------------------------------------------------------


def test_what_is_no_value_of_json_is_named() -> None:
    with pytest.raises(EncodeError, match="object is not a JSON value"):
        to_json(Value(list_value=[1, object()]))  # type: ignore[arg-type]  # wrong on purpose


def test_a_hundred_levels_and_no_more(described: Peers) -> None:
    ours = described.ours.Every
    nested = '{"self": ' * 99 + "{}" + "}" * 99
    assert to_json(from_json(ours, nested)) == nested.replace(" ", "")
    values = "[" * 99 + "]" * 99
    assert to_json(from_json(Value, values)) == values
    assert from_json(Value, f"[{values}]") is not None
    with pytest.raises(DecodeError, match="nested too deeply"):
        from_json(Value, f"[[{values}]]")
    anys = AnyMessage()
    for _ in range(101):
        anys = AnyMessage("x/google.protobuf.Any", encode(anys))
    with pytest.raises(EncodeError, match="nested too deeply"):
        to_json(anys)


SLOW = {
    "digits": ('{"anInt64": 1', "1", "}"),
    "digits of a fraction": ('{"anInt64": 1.', "0", "}"),
    "digits of a double": ('{"aDouble": 1.', "1", "}"),
    "quoted digits": ('{"anInt64": "1', "1", '"}'),
    "a time": ('{"time": "', "1", '"}'),
    "a duration": ('{"span": "', "1", '"}'),
    "base64": ('{"someBytes": "', "-_", '"}'),
    "paths": ('{"any": {"@type": "x/google.protobuf.FieldMask", "value": "', "aB,", 'a"}}'),
    "a type": ('{"any": {"@type": "x/', "a.", '"}}'),
    "brackets": ('{"value": ', "[", ""),
    "numbers": ('{"int32s": [', "1,", "1]}"),
    "messages": ('{"leaves": [', "{},", "{}]}"),
    "names": ('{"nobody', "_a", '": 1}'),
}


@pytest.mark.parametrize("case", SLOW)
def test_time_is_linear(described: Peers, case: str) -> None:
    before, many, after = SLOW[case]

    def seconds(size: int) -> float:
        text = before + many * (size // len(many)) + after
        best = 60.0
        for _ in range(3):
            begun = time.thread_time()
            with suppress(DecodeError, EncodeError):
                to_json(from_json(described.ours.Every, text))
            best = min(best, time.thread_time() - begun)
        return best

    seconds(1000)
    small, large = seconds(20_000), seconds(160_000)
    assert large < 0.02 or large < 24 * small, f"{small:.4f} s, 8 times as much: {large:.4f} s"
    assert large < 3
