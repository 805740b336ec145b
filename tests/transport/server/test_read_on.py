"""A request that begins as others did is read as if it were the first."""

from __future__ import annotations

import random

from streamkit.config import TransportLimits
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.http2.blocks import BlockReader, BlockWriter
from streamkit.transport.server.request import Refusal, Request, read_request

LIMITS = TransportLimits(max_header_list=700)
WHOLE: Headers = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "of a caller"),
    ("grpc-accept-encoding", "gzip"),
    ("x-constant", "the same"),
]
HEADS: list[Headers] = [
    WHOLE,
    WHOLE[:-5],  # what makes it a call comes later, if at all
    [*WHOLE, ("grpc-timeout", "3S")],
    [(":method", "GET"), *WHOLE[1:]],
    [*WHOLE, ("grpc-encoding", "gzip"), ("data-bin", "AAE")],
]
OWN: Headers = [
    ("grpc-timeout", "90m"),
    ("grpc-timeout", "1H"),
    ("grpc-timeout", "soon"),
    ("x-id", "one"),
    ("x-id", "two"),
    ("x-empty", ""),
    ("x-odd", "\xff"),
    ("x-zero", "a\0b"),
    ("own-bin", "AAE="),
    ("own-bin", "?"),
    ("X-Upper", "a"),
    ("x y", "a"),
    (":path", "/another"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("host", "here"),
    ("connection", "close"),
    ("user-agent", "another"),
    ("content-type", "text/html"),
    ("grpc-encoding", "br"),
    ("grpc-unknown", "1"),
    ("grpc-retry-pushback-ms", "5"),
    ("x!#$", "a"),
    ("x-long", "y" * 300),
]


def plain(found: Request | Refusal) -> object:
    if isinstance(found, Refusal):
        return found
    return (*found[:1], list(found.metadata.items()), *found[2:4], bool(found.inflate), found[5])


def test_the_rest_of_a_request_is_read_as_the_whole_is() -> None:
    on = calls = 0
    for seed in range(400):
        rng = random.Random(seed)
        writer, reader = BlockWriter(), BlockReader()
        head = rng.choice(HEADS)
        for _ in range(3):
            reader.read(writer.encode(head))  # they are in the table from here on
        for _ in range(6):
            own = [rng.choice(OWN[:6] if rng.random() < 0.6 else OWN) for _ in range(3)]
            block = writer.encode(head) + b"".join(map(literal, own))
            fields = reader.read(block)
            assert fields == [*head, *own]
            found = read_request(fields, "proto", LIMITS)
            assert plain(found) == plain(read_request([*head, *own], "proto", LIMITS)), own
            on += fields.head is not None and "begun" in fields.head.made
            calls += isinstance(found, Request)
    assert on > 1000
    assert calls > 500


def literal(pair: tuple[str, str]) -> bytes:
    """A field that is not indexed."""
    name, value = (text.encode("latin-1") for text in pair)
    size = bytes([len(value)]) if len(value) < 127 else bytes([127, (len(value) - 127) | 0x80, 1])
    return b"\0" + bytes([len(name)]) + name + size + value


def test_what_a_call_does_to_its_metadata_is_its_own() -> None:
    writer, reader = BlockWriter(), BlockReader()
    for _ in range(3):
        reader.read(writer.encode(WHOLE))
    for number in range(4):
        fields = reader.read(writer.encode(WHOLE) + literal(("x-id", str(number))))
        found = read_request(fields, "proto", LIMITS)
        assert isinstance(found, Request)
        assert dict(found.metadata) == {"x-constant": "the same", "x-id": str(number)}
        found.metadata["x-constant"] = "changed"
