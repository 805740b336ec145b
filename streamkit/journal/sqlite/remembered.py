"""What was answered to whose requests: found again in memory or in the file, kept with what was
stored. One thread uses it, within the store's transactions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from streamkit.journal.base import ProducerId, Stream
from streamkit.journal.records.items import Row, dump
from streamkit.journal.rules.dedupe import Answer, Window, Windows, check_producer

__all__ = ["COLUMNS", "Remembered"]

COLUMNS = ("stream", "producer", "request", "last", "answer", "time")

Batches = Sequence[tuple[Sequence[Any], ProducerId | None]]

_LAST = (1 << 63) - 1


class Remembered:
    """The table `dedupe`, and the windows of it that are in memory."""

    def __init__(self, connection: sqlite3.Connection, windows_bytes: int) -> None:
        self._connection = connection
        self._windows = Windows(windows_bytes)
        self.rows: list[Row] = []
        """What the transaction to come is to store."""
        self.forgotten: list[tuple[str, str, int]] = []
        """And what it is to remove: a stream's, a producer's requests up to a number."""
        self.repeats = 0
        """Requests that were here before."""

    def find(self, stream: Stream, producer: ProducerId | None) -> Answer | None:
        """What the request was answered, None for a new one. Raises InvalidArgumentError for one
        that cannot be named, PreconditionError for one that is too old."""
        if producer is None:
            return None
        check_producer(producer)
        answer = self._window(stream, producer.id).find(producer.sequence)
        self.repeats += answer is not None
        return answer

    def all_new(self, stream: Stream, batches: Batches) -> bool:
        """Whether there is nothing to say about any of them: all are named as they should be, new,
        and counted upwards."""
        newest: dict[str, int] = {}
        window: Window | None = None
        last = ""
        for _, producer in batches:
            if producer is None:
                continue
            name, number = producer
            if name != last:
                last = name
                window = self._window(stream, name)
                newest.setdefault(name, window.floor)
            if window is None or number in window.answers:
                return False
            if not name or not newest[name] < number <= _LAST:
                return False
            newest[name] = number
        return True

    def keep(
        self, stream: Stream, producer: ProducerId, answer: Answer, time: str, requests: int = 1
    ) -> None:
        """Remember an answer; of so many `requests` counted from this one, if each was for as many
        records, stored one after the other."""
        name, number = producer
        window = self._window(stream, name)
        # Numbers alone: as JSON they are their own text. The stream by its value, since sqlite3
        # looks long for an adapter of whatever is not text itself.
        text = f"[{answer[0]},{answer[1]}]" if len(answer) == 2 else dump(answer)
        last = None if requests == 1 else number + requests - 1
        self.rows.append((stream.value, name, number, last, text, time))
        if self._windows.remember(window, number, answer, requests):
            # Request 0 stands for all that are forgotten.
            self.rows.append((stream.value, name, 0, None, dump([window.floor]), time))
            self.forgotten.append((stream, name, window.floor))

    def keep_all(
        self, stream: Stream, batches: Batches, first: int, time: str
    ) -> list[tuple[int, int]]:
        """Remember and return what new batches are answered that were stored one after the other,
        from `first` on."""
        answers: list[tuple[int, int]] = []
        run: ProducerId | None = None  # the first of several that follow each other
        begun, requests = (0, 0), 0
        for messages, producer in batches:
            size = len(messages)
            if run is not None and size == begun[1] and producer == (run[0], run[1] + requests):
                requests += 1
            else:
                if run is not None:
                    self.keep(stream, run, begun, time, requests)
                run, begun, requests = producer, (first, size), 1
            answers.append((first, size))
            first += size
        if run is not None:
            self.keep(stream, run, begun, time, requests)
        return answers

    def forget(self, stream: Stream, producer: str, first: int, last: int) -> None:
        """A row was removed: what is in memory must not remember it any longer."""
        self._windows.forget(stream, producer, first, last)

    def settle(self) -> None:
        """The transaction is done."""
        self.rows, self.forgotten = [], []
        self._windows.trim()

    def undo(self) -> None:
        """It was not: what is in memory remembers what was not stored."""
        self.rows, self.forgotten = [], []
        self._windows.clear()

    def _window(self, stream: Stream, producer: str) -> Window:
        window = self._windows.get(stream, producer)
        if window is None:
            found = self._connection.execute(
                "select request, ifnull(last, request), answer from dedupe"
                " where stream = ? and producer = ?",
                (stream, producer),
            ).fetchall()
            answers: dict[int, Answer] = {}
            floor = 0
            for number, last, text in found:
                answer = tuple(json.loads(text))
                if not number:
                    floor = answer[0]
                elif last == number:
                    answers[number] = answer
                else:
                    first, count = answer
                    for request in range(number, last + 1):
                        answers[request] = (first + (request - number) * count, count)
            if floor:  # of a run some may be forgotten, and some not
                answers = {number: answer for number, answer in answers.items() if number > floor}
            window = Window(answers, floor)
            self._windows.put(stream, producer, window)
        return window
