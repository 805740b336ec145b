"""Long runs of short fields are read together: what comes out is as if read one by one."""

from __future__ import annotations

import random
from itertools import count, cycle, islice

import pytest

from streamkit.codec import decode
from streamkit.codec.wire.columns import columns
from streamkit.errors import DecodeError
from tests.codec.mutations import varint
from tests.codec.peers import Peers
from tests.codec.test_fuzz import check


def sized(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_columns_hold_varints_of_every_size() -> None:
    rng = random.Random(3)
    values = [rng.getrandbits(rng.randint(1, 64)) for _ in range(40_000)]
    assert columns(b"".join(map(varint, values))) == values
    assert columns(b"\xff" * 9 + b"\x7f") == [2**64 - 1]
    assert columns(b"\x80" * 9 + b"\x00" + b"\x05" * 100) == [0] + [5] * 100
    assert columns(b"\x05" * 100 + b"\x80" * 10 + b"\x00") is None
    assert columns(b"\x80" * 100_000 + b"\x00") is None


def test_many_unknown_members_of_an_enum(every: Peers) -> None:
    numbers = [*range(-5, 300), 2**31 - 1, -(2**31), 2**40 + 7]
    packed = b"".join(varint(number) for number in numbers)
    assert check(every.ours.Every, every.google.Every, sized(76, packed))
    colours = decode(every.ours.Every, sized(76, packed)).colours
    assert colours[12] is every.ours.Colour.BLUE and colours[-1] is every.ours.Colour.BLUE
    one = every.ours.Colour.try_value(77)
    made = colours[82]
    assert (made, made.name, made.value, repr(made)) == (one, one.name, one.value, repr(one))
    assert type(made) is type(one) and vars(made) == vars(one)


def test_pieces_of_a_message_have_to_be_right_each(every: Peers) -> None:
    ours, google = every.ours.Every, every.google.Every
    whole = [b"\x08" + varint(number) for number in range(200)]
    assert check(ours, google, b"".join(sized(17, one) for one in whole))
    # Put together these are the same bytes.
    halves = [half for one in whole for half in (one[:1], one[1:])]
    assert not check(ours, google, b"".join(sized(17, half) for half in halves))


def test_a_group_in_a_long_run_has_to_end_itself(every: Peers) -> None:
    ours, google = every.ours.Every, every.google.Every
    run = b"\xc3\x3e\xc4\x3e\x0b\x08\x01\x0c" * 100
    assert check(ours, google, run)
    for wrong in (b"\xc3\x3e\xcc\x3e", b"\xc3\x3e\xc4\x3f", b"\x0b\x14", b"\x0b\xc4\x3e"):
        assert not check(ours, google, run + wrong + run)
        assert not check(ours, google, b"\x18\x01" * 50 + run + wrong + b"\x18\x01" * 50)


def test_equal_messages_are_messages_of_their_own(every: Peers) -> None:
    ours = every.ours.Every
    tokens = (sized(77, b""), sized(77, b"\x08\x05"), sized(77, b"\x12\x01a\x08\x07"))
    data = b"".join(islice(cycle(tokens), 300))
    assert check(ours, every.google.Every, data)
    leaves = decode(ours, data).leaves
    assert len({id(leaf) for leaf in leaves}) == 300
    leaves[1].number = 9
    assert [leaf.number for leaf in leaves[:5]] == [0, 9, 7, 0, 5]

    data = sized(78, b"\xf8\x03\x01") * 300
    assert check(ours, every.google.Every, data)
    selves = decode(ours, data).selves
    selves[0].int32_s.append(2)
    assert selves[1].int32_s == [1]


def test_different_messages(every: Peers) -> None:
    ours, google = every.ours.Every, every.google.Every
    numbers = (b"\x08" + varint(number) for number in (*range(200), 2**64 - 1, 2**31 + 5))
    texts = [b"", b"\x12\x02\xc3\xbc", b"\x12\x03a\0b", b"\x12\x00"]
    leaves = [number + text for number, text in zip(numbers, cycle(texts), strict=False)]
    leaves += [b"", b"\x12\x01z", b"\x08\x00"]
    for few in (leaves, [*leaves, b"\x12\x01z\x08\x07"], [*leaves, b"\x08\x01\x18\x01"]):
        assert check(ours, google, b"".join(sized(77, leaf) for leaf in few))
    for wrong in (b"\x12\x01\xff", b"\x08", b"\x12\x05a"):
        run = [sized(77, leaf) for leaf in leaves]
        assert not check(ours, google, b"".join([*run, sized(77, wrong), *run]))
        with pytest.raises(DecodeError) as caught:
            decode(ours, b"".join([*run, sized(77, wrong), *run]))
        assert caught.value.path.startswith(f"Every.leaves[{len(run)}]")


@pytest.mark.parametrize(
    ("field", "path"),
    [
        (sized(74, b"\xff"), "Every.strings[200]"),
        (sized(77, b"\x12\x01\xff"), "Every.leaves[200].text"),
        (sized(81, b"\x0a\x01\xff"), "Every.string_values[200].value"),
        (sized(79, b"\x08\xff"), "Every.times[200].seconds"),
        (sized(63, b"\xff"), "Every.int32_s[200]"),
        (sized(91, b"\x0a\x01\xff"), "Every.text_by_text.key"),
        (sized(17, b"\x12\x01\xff"), "Every.leaf.text"),
        (sized(42, b"\xff"), "Every.chosen_string"),
    ],
)
def test_a_refusal_in_a_long_run_has_the_same_path(every: Peers, field: bytes, path: str) -> None:
    number = varint((field[0] & 127 | field[1] << 7) & ~7)
    empty = field[:2] + b"\0" if field[:2] != b"\xfa\x03" else number + b"\x01"
    for run in ([empty] * 200, [empty, b"\x18\x01"] * 200):
        data = b"".join([*run, field, *run])
        with pytest.raises(DecodeError) as caught:
            decode(every.ours.Every, data)
        assert caught.value.path == path


def test_missing_values_among_others(every: Peers) -> None:
    texts = [b"", b"\x0a\x02\0b", b"", b"\x0a\x04\xc3\xbc\0\0", b""]
    data = b"".join(sized(81, text) for text in texts * 20)
    assert check(every.ours.Every, every.google.Every, data)
    entries = [b"", b"\x0a\x01a", b"\x12\x01b", b"\x12\x01c\x0a\x01d", b"\x0a\x01e\x12\x02\0f", b""]
    for number in (91, 105, 107, 111):
        data = b"".join(sized(number, entry) for entry in entries[:2] * 20 + entries[-1:] * 20)
        assert check(every.ours.Every, every.google.Every, data)
    data = b"".join(sized(91, entry) for entry in entries * 20)
    assert check(every.ours.Every, every.google.Every, data)


def test_the_last_member_of_a_oneof_stays(every: Peers) -> None:
    ours, google = every.ours.Every, every.google.Every
    leaves = (sized(43, b"\x08" + varint(number)) for number in count())
    others = cycle([sized(42, b"x"), b"\xc8\x02\x05", sized(46, b"\x0a\x01y"), sized(45, b"")])
    mixed = [next(others) if turn % 3 else next(leaves) for turn in range(300)]
    for end in range(280, 300):
        assert check(ours, google, b"".join(mixed[:end]))
    merged = b"".join([*mixed, sized(43, b"\x08\x01"), sized(43, b"\x12\x01z")])
    assert check(ours, google, merged)
    assert (leaf := decode(ours, merged).chosen_leaf).number == 1 and leaf.text == "z"


def test_odd_entries_of_a_map_keep_their_place(every: Peers) -> None:
    odd = [sized(91, b"\x0a\x01" + bytes([97 + n]) + b"\x18\x01") for n in range(5)]
    usual, stranger = sized(91, b"\x0a\x01a\x12\x01b"), b"\xc0\x3e\x01"
    data = b"".join(islice(cycle([*odd, usual, stranger]), 400))
    assert check(every.ours.Every, every.google.Every, data)
