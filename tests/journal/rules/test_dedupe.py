"""What is remembered of a producer, and where it ends."""

from __future__ import annotations

import pytest

from streamkit.errors import PreconditionError
from streamkit.journal import Stream
from streamkit.journal.rules.dedupe import REQUESTS, Window, Windows


def test_what_is_forgotten_is_refused_to_the_very_last() -> None:
    window = Window({6: (60, 1)}, floor=5)
    assert window.find(6) == (60, 1)
    assert window.find(7) is None
    for forgotten in (5, 4, 1):
        with pytest.raises(PreconditionError, match="is too old"):
            window.find(forgotten)


def test_the_oldest_are_forgotten_in_whatever_order_they_came() -> None:
    window = Window()
    moved = [window.remember(n, (n, 1)) for n in range(REQUESTS + 1024, 0, -1)]
    assert moved.count(True) == 1
    assert window.floor == 1024
    assert len(window.answers) == REQUESTS
    assert window.find(1025) == (1025, 1)
    with pytest.raises(PreconditionError):
        window.find(1024)


def test_memory_is_bounded_in_bytes_and_not_in_the_midst_of_a_batch() -> None:
    windows = Windows(100_000)
    for producer in ("a", "b", "c"):
        window = Window()
        windows.put(Stream.LOGS, producer, window)
        for n in range(1, 201):
            windows.remember(window, n, tuple(range(5)))
    assert windows.size > 100_000
    assert windows.get(Stream.LOGS, "a") is not None  # used last now
    windows.trim()
    assert 0 < windows.size <= 100_000
    assert windows.get(Stream.LOGS, "b") is None
    assert windows.get(Stream.LOGS, "a") is not None
    windows.clear()
    assert windows.size == 0
