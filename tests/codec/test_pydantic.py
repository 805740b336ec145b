"""Classes that betterproto generates with `pydantic_dataclasses`: their oneofs are oneofs."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import betterproto
import pytest
from pydantic import ValidationError

from streamkit.codec import decode, encode
from tests.codec.peers import compile_ours

PROTO = """
syntax = "proto3";
package picked;
message Sub { int32 number = 1; }
message Message {
  oneof choice { string text = 1; int64 number = 2; Sub sub = 3; }
  optional int32 other = 4;
  repeated string names = 5;
}
"""


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("picked")
    Path(target, "picked.proto").write_text(PROTO)
    with warnings.catch_warnings():
        # The plug-in's validators have a form that newer releases of pydantic frown upon.
        warnings.simplefilter("ignore")
        return compile_ours(target, "picked", target, "picked", "pydantic_dataclasses")


def test_one_member_of_a_oneof_is_set(picked: Any) -> None:
    message = picked.Message(number=0)
    assert betterproto.which_one_of(message, "choice") == ("number", 0)
    assert encode(message) == b"\x10\x00"
    message.text = "x"
    assert betterproto.which_one_of(message, "choice") == ("text", "x")
    assert encode(message) == b"\x0a\x01x" and not message.is_set("number")
    with pytest.raises(AttributeError):
        _ = message.number
    message.sub = picked.Sub()
    assert encode(message) == b"\x1a\x00"


@pytest.mark.parametrize("wire", [b"\x10\x07", b"\x0a\x00", b"\x1a\x02\x08\x05", b"\x10\0\x20\0"])
def test_what_is_decoded_is_written_again(picked: Any, wire: bytes) -> None:
    message = decode(picked.Message, wire)
    assert encode(message) == wire
    assert copy.deepcopy(message) == message
    assert picked.Message.from_dict(message.to_dict()) == message


def test_the_last_member_on_the_wire_stays(picked: Any) -> None:
    message = decode(picked.Message, b"\x0a\x01x\x10\x07")
    assert betterproto.which_one_of(message, "choice") == ("number", 7)


def test_an_optional_field_is_none_of_it(picked: Any) -> None:
    message = picked.Message(text="x", other=0, names=["a"])
    assert encode(message) == b"\x0a\x01x\x20\x00\x2a\x01a"
    assert picked.Message(text="x").other is None


def test_pydantic_still_validates(picked: Any) -> None:
    for _ in range(2):
        with pytest.raises(ValidationError, match="valid integer"):
            picked.Message(number="many")
        with pytest.raises(ValidationError, match="has no value"):
            picked.Message()
        picked.Message(number=1)
