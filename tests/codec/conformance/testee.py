"""The program that protobuf's conformance runner talks to: `testee.py FOLDER`.

FOLDER holds the classes that betterproto's plug-in made of conformance.proto and
test_messages_proto3.proto. A request is a length of four bytes and a ConformanceRequest, so is the
answer; the end of input ends the program.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import betterproto

from streamkit.codec import decode, encode
from streamkit.codec.message.json import from_json, to_json
from streamkit.errors import DecodeError, EncodeError

PROTO3 = "protobuf_test_messages.proto3.TestAllTypesProto3"


def answer(wire: Any, cls: Any, request: Any) -> Any:
    """Return the ConformanceResponse; `wire` is the module of requests and responses."""
    if request.message_type != PROTO3:
        return wire.ConformanceResponse(skipped=f"no {request.message_type}")
    if request.test_category == wire.TestCategory.TEXT_FORMAT_TEST:
        return wire.ConformanceResponse(skipped="no text format")
    tolerant = request.test_category == wire.TestCategory.JSON_IGNORE_UNKNOWN_PARSING_TEST
    kind: str
    payload: Any
    kind, payload = betterproto.which_one_of(request, "payload")
    try:
        if kind == "protobuf_payload":
            message = decode(cls, payload)
        elif kind == "json_payload":
            message = from_json(cls, payload, ignore_unknown=tolerant)
        else:
            return wire.ConformanceResponse(skipped=f"no {kind}")
    except DecodeError as error:
        return wire.ConformanceResponse(parse_error=str(error))
    try:
        if request.requested_output_format == wire.WireFormat.PROTOBUF:
            return wire.ConformanceResponse(protobuf_payload=encode(message))
        if request.requested_output_format == wire.WireFormat.JSON:
            return wire.ConformanceResponse(json_payload=to_json(message))
    except EncodeError as error:
        return wire.ConformanceResponse(serialize_error=str(error))
    return wire.ConformanceResponse(skipped="no such output")


def serve(folder: str, requests: BinaryIO, responses: BinaryIO) -> None:
    sys.path.insert(0, folder)
    import conformance as wire  # type: ignore[import-not-found]  # generated into the folder
    from protobuf_test_messages.proto3 import (  # type: ignore[import-not-found]  # made by the test
        TestAllTypesProto3,
    )

    while size := requests.read(4):
        request = decode(wire.ConformanceRequest, requests.read(int.from_bytes(size, "little")))
        data = encode(answer(wire, TestAllTypesProto3, request))
        responses.write(len(data).to_bytes(4, "little") + data)
        responses.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
