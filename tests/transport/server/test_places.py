"""Where a mistake is, in one line of the log."""

from __future__ import annotations

import json

import pytest

from streamkit.transport.server.serving import place_of


def outer() -> None:
    inner()


def inner() -> None:
    raise ValueError("a mistake")


def test_a_mistake_is_placed_where_it_was_made() -> None:
    with pytest.raises(ValueError) as caught:
        outer()
    line = inner.__code__.co_firstlineno + 1
    assert place_of(caught.value) == f"{__file__}:{line}"


def test_a_mistake_that_a_library_found_has_its_place_there() -> None:
    with pytest.raises(ValueError) as caught:
        json.loads("{")
    place, _, line = place_of(caught.value).rpartition(":")
    assert place.endswith("decoder.py") and int(line) > 0
