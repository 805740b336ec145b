"""Where a stream stands: sequences, gaps, lives, and places of streams that are not ours."""

from __future__ import annotations

from typing import Any

import pytest

from streamkit.client.reading.cursor import KeyCursor
from streamkit.client.reading.start import start_from
from streamkit.errors import PreconditionError, StreamGapError, StreamkitError
from streamkit.generated.streamservice import Gap, Position, StartFrom, Update
from tests.client.reading.scripted import META, cursor, gap, heartbeat, numbers


def test_a_new_stream_resumes_from_where_the_server_started_it() -> None:
    """Broken before the first record: what was published meanwhile must still come."""
    place = cursor()
    assert place.request().start is None, "the stream's own default"
    place.opened({"streamkit-epoch": "e1", "streamkit-position": "41"})
    assert place.request().start.after == Position("e1", 41)


def test_heartbeats_move_the_position_and_are_not_delivered() -> None:
    place = cursor()
    place.opened(META)
    assert numbers(place.take([Update(sequence=3), heartbeat(9)])) == [3]
    assert place.position == ("e1", 9)


def test_duplicates_are_dropped() -> None:
    place = cursor()
    place.opened(META)
    assert numbers(place.take([Update(sequence=1), Update(sequence=2)])) == [1, 2]
    assert numbers(place.take([Update(sequence=2), Update(sequence=3)])) == [3]


def test_a_gap_is_told_and_the_stream_goes_on() -> None:
    told: list[Gap] = []
    place = cursor(on_loss=told.append)
    place.opened(META)
    assert numbers(place.take([Update(sequence=1), gap(2, 7), Update(sequence=8)])) == [1, 8]
    assert [(loss.first, loss.last) for loss in told] == [(2, 7)]


def test_a_gap_without_a_listener_is_an_error() -> None:
    place = cursor()
    place.opened(META)
    with pytest.raises(StreamGapError):
        place.take([gap(1, 7)])


def test_a_server_that_resumes_further_on_has_lost_something() -> None:
    told: list[Gap] = []
    place = cursor(on_loss=told.append)
    place.opened(META)
    place.take([Update(sequence=5)])
    place.opened({"streamkit-epoch": "e1", "streamkit-position": "9"})
    assert [(loss.first, loss.last) for loss in told] == [(6, 9)]
    assert place.request().start.after.sequence == 9


def test_a_plain_server_without_sequences_still_delivers() -> None:
    place = cursor()
    place.opened({})
    assert len(place.take([Update(topic="a"), Update(topic="a")])) == 2


def test_starts_have_a_wire_form() -> None:
    assert start_from(None) is None
    assert start_from("new") == StartFrom(new=True)
    assert start_from("all") == StartFrom(all=True)
    with pytest.raises(StreamkitError):
        start_from("yesterday")  # type: ignore[arg-type]  # the point of the test


# ---- places of streams that are not ours ----


def places(*taken: Any, position: Any = None) -> tuple[KeyCursor[Any, Any], list[Any]]:
    """A cursor whose messages are places; what it handed on, attempt by attempt."""
    key: KeyCursor[Any, Any] = KeyCursor(lambda place: place, lambda place: place)
    key.position = position
    got = []
    for attempt in taken:
        key.request()
        got.append(key.take(list(attempt)))
    return key, got


def test_a_new_life_is_delivered_however_it_is_called() -> None:
    for first, second in (("a", "b"), ("b", "a"), (b"b", b"a")):
        new = [(second, 1), (second, 2)]
        _, got = places([(first, 4), (first, 5)], new)
        assert got[1] == new


def test_an_old_life_that_is_repeated_is_known() -> None:
    _, got = places(
        [("b", 1), ("b", 2)], [("b", 2), ("a", 1)], [("b", 1), ("b", 2), ("a", 1), ("a", 2)]
    )
    assert got[1:] == [[("a", 1)], [("a", 2)]]


def test_ordered_pairs_are_no_lives() -> None:
    _, got = places([(1, 8), (2, 1)], [(1, 9), (2, 1), (2, 2)])
    assert got[1] == [(2, 2)]


def test_messages_that_share_a_place_are_all_delivered() -> None:
    _, got = places([1, 1, 2, 2, 2])
    assert got == [[1, 1, 2, 2, 2]]


def test_a_break_among_messages_of_one_place_loses_none_of_them() -> None:
    key, _ = places([1, 1, 2, 2])
    assert key.request() == 1, "the last place of which nothing more can come"
    assert key.take([2, 2, 2, 3]) == [2, 3]
    assert key.request() == 2
    assert key.take([3, 4]) == [4]


def test_within_an_attempt_the_servers_order_is_the_right_one() -> None:
    _, got = places([5, 3, 4])
    assert got == [[5, 3, 4]]


def test_a_server_that_goes_on_in_another_life_is_an_error() -> None:
    place = cursor()
    place.opened(META)
    place.take([Update(sequence=5)])
    with pytest.raises(PreconditionError, match="another life"):
        place.opened({"streamkit-epoch": "e2", "streamkit-position": "5"})


# ---- rules that are easily lost ----


def test_an_older_heartbeat_moves_nothing_back() -> None:
    place = cursor()
    place.opened(META)
    assert numbers(place.take([Update(sequence=7), heartbeat(3), Update(sequence=7)])) == [7]
    assert place.position == ("e1", 7)
    assert place.request().start.after.sequence == 7
