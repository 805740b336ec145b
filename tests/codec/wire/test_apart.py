"""A payload is taken out of a message where it is, and what is left is the message without it."""

from __future__ import annotations

import random

import pytest

from streamkit.codec import apart, decode
from streamkit.errors import DecodeError
from streamkit.generated.streamservice import Column, QueryResult

PAYLOAD = 11


def test_a_payload_is_taken_out_where_it_is() -> None:
    columns = [Column(name="n", type="BIGINT")]
    whole = QueryResult(columns=columns, batch_number=3, total_rows=2**40, arrow_ipc=b"x" * 1000)
    data = bytes(whole)
    rest, payload = apart(data, PAYLOAD)

    assert payload == b"x" * 1000
    assert payload.obj is data
    left = decode(QueryResult, rest)
    assert left.arrow_ipc == b""
    left.arrow_ipc = bytes(payload)
    assert left == whole


def test_a_payload_that_is_not_there_is_empty() -> None:
    data = bytes(QueryResult(batch_number=3))
    rest, value = apart(memoryview(data), PAYLOAD)
    assert (rest, bytes(value)) == (data, b"")
    rest, value = apart(b"", PAYLOAD)
    assert (rest, bytes(value)) == (b"", b"")


def test_of_several_payloads_the_last_one_counts() -> None:
    data = b"".join(bytes(QueryResult(arrow_ipc=part)) for part in (b"a", b"bb", b"ccc"))
    rest, value = apart(data, PAYLOAD)
    assert (rest, bytes(value)) == (b"", b"ccc")


def test_broken_bytes_are_a_decode_error_or_decode_as_ever() -> None:
    dice = random.Random(1)
    whole = QueryResult(columns=[Column(name="n")], batch_number=300, arrow_ipc=b"abc" * 9)
    whole.total_rows = 5
    good = bytes(whole)
    for _ in range(3000):
        data = bytearray(good[: dice.randrange(len(good) + 1)])
        for _ in range(dice.randrange(3)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            expected = decode(QueryResult, bytes(data))
        except DecodeError:
            with pytest.raises(DecodeError):
                rest, _ = apart(bytes(data), PAYLOAD)
                decode(QueryResult, rest)
            continue
        rest, payload = apart(bytes(data), PAYLOAD)
        left = decode(QueryResult, rest)
        left.arrow_ipc = bytes(payload)
        assert left == expected
