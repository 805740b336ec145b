"""The parts that need no connection: buckets, the log, metadata, compression, the buffer."""

from __future__ import annotations

import gzip
import logging
import random
import struct

import pytest

from streamkit.config import TransportLimits
from streamkit.errors import (
    InternalError,
    InvalidArgumentError,
    LimitError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.transport.grpc.compression import compress, inflater, offered
from streamkit.transport.grpc.metadata import (
    decode_message,
    decode_metadata,
    decode_timeout,
    encode_message,
    encode_metadata,
    encode_timeout,
)
from streamkit.transport.grpc.receive import ReceiveBuffer
from streamkit.transport.http2.budgets import Bucket
from streamkit.transport.log import QuietLog
from tests.transport.raw import message


def test_a_status_message_is_read_as_utf8_escaped_or_not() -> None:
    text = "\u30a8\u30e9\u30fc \u2603"
    assert decode_message(encode_message(text)) == text
    assert decode_message(text.encode().decode("latin-1")) == text
    assert decode_message("50%\xff%E2%98%83") == "50%\ufffd\u2603"


def test_a_bucket_gives_its_capacity_and_regains_it() -> None:
    bucket = Bucket(10, 5.0)
    assert [bucket.take(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert bucket.take(100.4) is False
    assert bucket.take(100.6) is True
    assert [bucket.take(200.0) for _ in range(12)].count(True) == 10
    bucket.give(3)
    assert [bucket.take(200.0) for _ in range(5)].count(True) == 3


def test_a_bucket_does_not_fill_while_it_is_emptied() -> None:
    bucket = Bucket(100, 100.0)
    taken = sum(bucket.take(step / 100) for step in range(10_000))
    assert 195 <= taken <= 201


def test_the_log_is_one_line_per_kind(caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog(logging.getLogger("streamkit.test"), interval=60)
    for _ in range(1000):
        log.warning("a", "x\ny\x1b[2J" + "z" * 1000)
        log.warning("b", "other")
    assert [r.getMessage()[:16] for r in caplog.records] == ["a: x\\ny\\x1b[2Jzz", "b: other"]
    assert max(len(r.getMessage()) for r in caplog.records) < 400
    log._next.clear()
    log.warning("a", "again")
    assert caplog.records[-1].getMessage() == "a: again (and 999 more)"


@pytest.mark.parametrize(
    "seconds", [0.0, 1e-9, 0.001, 0.0999, 1.0, 59.9, 3600.5, 1e7, 3e9, 100.0, 100_000.0]
)
def test_timeouts_survive_the_wire(seconds: float) -> None:
    text = encode_timeout(seconds)
    assert len(text) <= 9
    assert decode_timeout(text) <= seconds + 1e-12
    assert decode_timeout(text) >= seconds * 0.9999 - 1e-9


def test_a_timeout_beyond_all_units_is_the_largest() -> None:
    assert encode_timeout(1e15) == "99999999H"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "100%",
        "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n",
        "  spaces  ",
        "\u00e9",
        "a%20b",
        "\x00\x7f",
    ],
)
def test_status_messages_survive_the_wire(text: str) -> None:
    wire = encode_message(text)
    assert wire.isascii()
    assert wire.isprintable() or not wire
    assert wire == wire.strip()
    assert decode_message(wire) == text


def test_a_long_status_message_is_cut_between_characters() -> None:
    text = decode_message(encode_message("\u00e9" * 5000))
    assert text.endswith("...")
    assert len(text.encode()) <= 1024
    assert set(text) == {"\u00e9", "."}
    assert decode_message("%zz%c3") == "%zz\ufffd"


def test_metadata_survives_the_wire() -> None:
    pairs: list[tuple[str, str | bytes]] = [
        ("a", "1"),
        ("a", "2"),
        ("b-bin", b"\xab\xab\xab"),
        ("b-bin", b""),
        ("c.d_e-f", " ~!"),
    ]
    again = decode_metadata(encode_metadata(pairs))
    assert list(again.items()) == [*pairs[:4], ("c.d_e-f", "~!")]
    assert decode_metadata([("x-bin", "YQ,YWI=,YWJj")]).getall("x-bin") == [b"a", b"ab", b"abc"]


def test_every_length_of_binary_metadata() -> None:
    for size in range(40):
        data = random.Random(size).randbytes(size)
        assert decode_metadata(encode_metadata({"x-bin": data}))["x-bin"] == data


def test_text_that_grpc_does_not_allow_is_left_out() -> None:
    metadata = decode_metadata([("a", "caf\xe9"), ("b", "ok"), (":path", "/"), ("grpc-x", "1")])
    assert list(metadata.items()) == [("b", "ok")]
    encode_metadata(metadata)


@pytest.mark.parametrize(
    "pair",
    [
        ("te", "x"),
        ("grpc-status", "0"),
        ("content-type", "x"),
        (":path", "/"),
        ("a b", "x"),
        ("", "x"),
        ("a", "\n"),
        ("a", "\xe9"),
        ("a", b"x"),
        ("a-bin", "x"),
        ("caf\xe9", "x"),
    ],
)
def test_bad_metadata_is_refused_by_name(pair: tuple[str, str | bytes]) -> None:
    with pytest.raises(InvalidArgumentError):
        encode_metadata([pair])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_both_ways(encoding: str) -> None:
    data = b"streamkit " * 1000
    packed = compress(encoding, data)
    assert len(packed) < len(data) / 10
    inflate = inflater(encoding, len(data))
    assert inflate is not None
    assert inflate(packed) == data
    with pytest.raises(InternalError):
        inflate(packed[:-1])
    small = inflater(encoding, len(data) - 1)
    assert small is not None
    with pytest.raises(LimitError):
        small(packed)


def test_encodings() -> None:
    assert inflater("identity", 1) is None
    assert inflater("", 1) is None
    with pytest.raises(UnimplementedError):
        inflater("br", 1)
    assert offered(["identity, deflate", "gzip,br"]) == {"gzip", "deflate"}


def test_the_buffer_cuts_messages_out_of_any_chunks() -> None:
    rng = random.Random(1)
    for _ in range(300):
        sent = [
            rng.randbytes(rng.choice((0, 1, 10, 1000, 70_000))) for _ in range(rng.randrange(30))
        ]
        data = b"".join(map(message, sent))
        buffer = ReceiveBuffer(1 << 20)
        got: list[bytes] = []
        freed = position = 0
        while position < len(data):
            step = rng.choice((1, 4, 5, 6, 500, 100_000)) if len(data) < 5000 else 20_000
            if buffer.feed(data[position : position + step]) or rng.random() < 0.2:
                messages, size = buffer.take()
                got += messages
                freed += size
            position += step
        buffer.eof = True
        while buffer.ready:
            messages, size = buffer.take()
            if not messages:
                break
            got += messages
            freed += size
        assert got == sent
        assert freed == len(data)
        assert buffer.size == 0


def test_the_buffer_hands_out_a_bounded_amount_at_once() -> None:
    buffer = ReceiveBuffer(1 << 20)
    for _ in range(10):
        buffer.feed(message(bytes(20)) * 4000)
    taken = []
    while buffer.ready:
        messages, _ = buffer.take()
        taken.append(len(messages))
    assert sum(taken) == 40_000
    assert max(taken) <= 8000


def test_a_message_that_is_left_is_not_taken_for_the_one_before() -> None:
    """Also where the end of the one before looks like the beginning of it."""
    buffer = ReceiveBuffer(1 << 20)
    large = b"x" * 10 + message(b"other one")
    buffer.feed(message(large)[:15])
    buffer.feed(message(large)[15:] + message(b"third one"))
    assert buffer.take(1)[0] == [large]
    assert buffer.take()[0] == [b"third one"]


def test_good_messages_come_before_the_violation() -> None:
    for bad, error in (
        (struct.pack(">BI", 0, 101), LimitError),
        (message(b"x", 1), InternalError),
        (message(b"x", 7), InternalError),
        (b"\0\0", InternalError),
    ):
        buffer = ReceiveBuffer(100)
        buffer.feed(message(b"one") + message(b"two") + bad)
        buffer.eof = True
        assert buffer.take()[0] == [b"one", b"two"]
        for _ in range(2):
            with pytest.raises(error):
                buffer.take()


def test_the_limit_holds_for_each_message() -> None:
    buffer = ReceiveBuffer(100)
    buffer.feed(message(bytes(100)) * 3)
    assert len(buffer.take()[0]) == 3
    buffer.inflate = inflater("gzip", 100)
    buffer.feed(message(gzip.compress(bytes(101)), 1))
    with pytest.raises(LimitError):
        buffer.take()


def test_reading_by_size() -> None:
    buffer = ReceiveBuffer(100)
    assert buffer.read(5) is None
    buffer.feed(b"abc")
    assert buffer.read(5) is None
    buffer.feed(b"defgh")
    assert buffer.read(5) == b"abcde"
    assert buffer.read(2) == b"fg"
    assert buffer.read(5) is None
    buffer.eof = True
    assert buffer.read(5) == b"h"
    assert buffer.read(5) == b""


def test_what_was_not_taken_can_be_given_back() -> None:
    buffer = ReceiveBuffer(100)
    buffer.feed(message(b"abc") + b"\0\0")
    buffer.take()
    assert buffer.clear() == 2
    assert not buffer.ready


def test_limits_are_checked_when_they_are_set() -> None:
    for name in ("max_message", "keepalive_time", "max_streams", "resets"):
        with pytest.raises(StreamkitError, match=name):
            TransportLimits(**{name: 0})
    assert TransportLimits(max_connection_age=0).max_connection_age == 0
