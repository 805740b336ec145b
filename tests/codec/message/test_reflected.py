"""Classes made of descriptors: on the wire and in JSON they are the generated ones."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files

import betterproto
import pytest
from betterproto.lib.google.protobuf import (
    DescriptorProto,
    FieldDescriptorProto,
    FieldDescriptorProtoLabel,
    FieldDescriptorProtoType,
    FileDescriptorProto,
    FileDescriptorSet,
)

from streamkit.codec import from_json, to_json
from streamkit.codec.message.reflected import Schema
from streamkit.errors import InvalidArgumentError, NotFoundError
from streamkit.generated.google.rpc import BadRequest, BadRequestFieldViolation
from streamkit.generated.streamservice import (
    Column,
    Position,
    QueryResult,
    Row,
    StartFrom,
    SubscribeRequest,
    Update,
)

FILES = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema(FileDescriptorSet().parse(FILES).file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("streamservice.Update", Update("a", "x", datetime(2026, 1, 2, tzinfo=UTC), {"k": "v"})),
        (
            "streamservice.SubscribeRequest",
            SubscribeRequest(["a"], start=StartFrom(after=Position("e", 7))),
        ),
        (
            ".streamservice.QueryResult",
            QueryResult([Row({"a": "1"})], 1, is_last=True, columns=[Column("a")]),
        ),
        (
            "google.rpc.BadRequest",
            BadRequest([BadRequestFieldViolation(field="f", description="d")]),
        ),
    ],
)
def test_they_read_and_write_what_generated_classes_do(
    name: str, message: betterproto.Message, schema: Schema
) -> None:
    made = schema.message(name)
    data, text = bytes(message), to_json(message)
    assert bytes(made().parse(data)) == data
    assert to_json(made().parse(data)) == text
    assert bytes(from_json(made, text)) == data
    assert schema.message(name) is made


def test_what_is_not_described_is_said(schema: Schema) -> None:
    with pytest.raises(NotFoundError, match=r"there is no method a\.B/C"):
        schema.method("a.B", "C")
    with pytest.raises(InvalidArgumentError, match=r"does not describe a\.B"):
        schema.message("a.B")


def test_numbers_in_a_message_of_their_own_may_be_missing() -> None:
    kinds = [".google.protobuf.Int64Value", ".google.protobuf.StringValue", ".t.Inner"]
    fields = [
        FieldDescriptorProto(
            name=f"f{number}",
            json_name=f"f{number}",
            number=number,
            type=FieldDescriptorProtoType(11),  # a message
            label=FieldDescriptorProtoLabel(1),  # at most one
            type_name=kind,
        )
        for number, kind in enumerate(kinds, 1)
    ]
    inner = DescriptorProto(name="Inner")
    outer = DescriptorProto(name="Outer", field=fields)
    file = FileDescriptorProto(name="t.proto", package="t", message_type=[inner, outer])
    made = Schema([file]).message("t.Outer")
    text = '{"f1":"7","f2":"","f3":{}}'
    assert to_json(from_json(made, text)) == text
    assert bytes(from_json(made, '{"f1": 0, "f2": "a"}')) == b"\x0a\x00\x12\x03\x0a\x01a"
    assert to_json(made().parse(b"\x0a\x02\x08\x07")) == '{"f1":"7"}'
