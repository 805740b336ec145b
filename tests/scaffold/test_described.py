"""What protoc says of a file goes on as it is, but for places without a comment."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_tools import protoc

from streamkit.scaffold.described import files_in, set_of, trimmed
from streamkit.scaffold.generate import generate

SCHEMA = """
syntax = "proto3";
package pay;
// What is paid.
message Payment {
  oneof way { string card = 1; int64 cash = 2; }
  optional int32 tip = 3;
  repeated int32 parts = 4 [packed = false];
  enum State { NEW = 0; DONE = 1; }
  State state = 5;
}
service Till { rpc Take(Payment) returns (Payment); }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pay.proto").write_text(SCHEMA)
    return tmp_path


def test_nothing_is_lost_but_places_without_a_comment(folder: Path) -> None:
    target = folder / "set"
    flags = [f"--proto_path={folder}", "--include_source_info", f"--descriptor_set_out={target}"]
    assert protoc.main(["protoc", *flags, "pay.proto"]) == 0
    whole = FileDescriptorSet.FromString(target.read_bytes())
    found = FileDescriptorSet.FromString(set_of(map(trimmed, files_in(target.read_bytes()))))
    (place,) = found.file[0].source_code_info.location
    assert place.leading_comments == " What is paid.\n"
    for each in (whole, found):
        each.file[0].ClearField("source_code_info")
    assert found == whole


def test_the_first_oneof_of_a_message_is_one(folder: Path) -> None:
    """In the code, and in the descriptors that reflection serves."""
    out = folder / "out"
    generate([folder / "pay.proto"], out)
    code = (out / "pay" / "__init__.py").read_text()
    for field in ('string_field(1, group="way"', 'int64_field(2, group="way"'):
        assert field in code
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((out / "pay/descriptors.binpb").read_bytes()).file:
        pool.Add(file)
    described = pool.FindMessageTypeByName("pay.Payment")
    assert [field.name for field in described.oneofs_by_name["way"].fields] == ["card", "cash"]
    assert not described.fields_by_name["parts"].is_packed


def test_googles_classes_take_our_own_descriptors() -> None:
    pool = DescriptorPool()
    data = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    assert pool.FindMessageTypeByName("streamservice.JobProgress").oneofs_by_name["_exit_code"]
