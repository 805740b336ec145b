"""The codec as grpclib sees it, and the functions beside it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf import struct_pb2

from streamkit.codec import StreamkitCodec, decode, decoder_for, encode, encoder_for, frame
from streamkit.errors import DecodeError, EncodeError, InvalidArgumentError, Status
from streamkit.generated.streamservice import QueryResult, Row, SubscribeRequest, Update

UPDATE = Update(
    topic="orders",
    message="Grüße 🚀",
    timestamp=datetime(2024, 5, 17, 8, 30, 1, 123456, tzinfo=UTC),
    metadata={"source": "system", "": ""},
)


def test_a_message_survives_the_round_trip() -> None:
    codec = StreamkitCodec()
    assert codec.__content_subtype__ == "proto"
    data = codec.encode(UPDATE, Update)
    assert data == encode(UPDATE) == bytes(UPDATE) == encoder_for(Update)(UPDATE)
    for back in (codec.decode(data, Update), decode(Update, data), Update.FromString(data)):
        assert back == UPDATE


def test_encoded_bytes_pass_as_they_are() -> None:
    assert StreamkitCodec().encode(b"\x0a\x01x", Update) == b"\x0a\x01x"


def test_a_message_of_another_class_is_refused() -> None:
    with pytest.raises(TypeError, match="SubscribeRequest was given for Update"):
        StreamkitCodec().encode(SubscribeRequest(), Update)


def test_a_frame_is_the_prefix_and_the_message() -> None:
    data = encode(UPDATE)
    assert frame(UPDATE) == b"\x00" + len(data).to_bytes(4, "big") + data
    assert frame(Update()) == bytes(5)


def test_a_decoder_takes_a_range_of_a_larger_buffer() -> None:
    data = encode(UPDATE)
    decoder = decoder_for(Update)
    assert decoder(b"\xff" * 7 + data + b"\xff\n", 7, 7 + len(data)) == UPDATE
    with pytest.raises(DecodeError):
        decoder(data + data, 0, len(data) + 3)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_like_object_is_decoded(kind: type) -> None:
    assert decode(Update, kind(encode(UPDATE))) == UPDATE


def test_google_classes_pass_through_their_own_code() -> None:
    codec = StreamkitCodec()
    message = struct_pb2.Struct()
    message.update({"a": [1, None]})
    data = codec.encode(message, struct_pb2.Struct)
    assert codec.decode(data, struct_pb2.Struct) == message
    with pytest.raises(DecodeError, match="Struct"):
        codec.decode(b"\x0a\x05", struct_pb2.Struct)


def test_a_stream_gets_the_decoder_of_its_messages_once() -> None:
    codec = StreamkitCodec()
    assert codec.decoder(Update) is decoder_for(Update)
    assert codec.decoder(Update)(encode(UPDATE)) == UPDATE
    google = codec.decoder(struct_pb2.Struct)
    assert google is codec.decoder(struct_pb2.Struct)
    with pytest.raises(DecodeError, match="Struct"):
        google(b"\x0a\x05")


def test_a_stream_obeys_a_codec_with_a_decode_of_its_own() -> None:
    class Upper(StreamkitCodec):
        def decode(self, data: bytes, message_type: Any) -> Any:
            message = super().decode(data, message_type)
            message.topic = message.topic.upper()
            return message

    assert Upper().decoder(Update)(encode(UPDATE)).topic == "ORDERS"


def test_times_are_read_again_as_they_were_the_first_time() -> None:
    first = datetime(2024, 5, 17, tzinfo=UTC)
    times = [first + timedelta(seconds=number // 2, microseconds=number) for number in range(1000)]
    for time in [*times, *times[::-1], *times[:3] * 2]:
        assert decode(Update, encode(Update(timestamp=time))).timestamp == time


def test_a_refusal_names_reason_and_path() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(QueryResult, b"\x0a\x00\x0a\x04\x0a\x02\x0a\x05")
    error = caught.value
    assert isinstance(error, InvalidArgumentError)
    assert error.status is Status.INVALID_ARGUMENT
    assert error.path == "QueryResult.rows[1].columns.key"
    assert error.reason == "the data is truncated"
    assert (error.__cause__ is None and error.__suppress_context__) or error.__context__ is None


def test_a_value_that_does_not_fit_names_reason_and_path() -> None:
    with pytest.raises(EncodeError) as caught:
        encode(QueryResult(rows=[Row(), Row(columns={"a": 1})]))  # type: ignore[dict-item]  # wrong on purpose
    assert caught.value.path == "QueryResult.rows[1].columns['a']"
    assert caught.value.reason == "a int is not a str"
    assert caught.value.status is Status.INTERNAL


def test_generated_code_shows_its_lines_in_a_traceback() -> None:
    decode(Update, b"")
    function = decoder_for(Update)
    lines, _ = inspect.getsourcelines(function)
    assert "def decode(data, start=0, end=None):\n" in lines
    # A name that another class had before in this process is followed by a number.
    assert function.__code__.co_filename.startswith(
        "<streamkit decode streamkit.generated.streamservice.Update"
    )


def test_importing_the_client_does_not_look_for_messages() -> None:
    # To go through all objects takes a tenth of a second, which every command would pay.
    code = "import gc, sys; gc.get_objects = lambda: sys.exit('looked'); import streamkit.client"
    subprocess.run([sys.executable, "-c", code], check=True)
