"""Reading ahead: the next record batch is read while the one before it is encoded.

Drivers read and Arrow's kernels encode without the interpreter's lock, so on two cores a result
takes as long as the slower of the two instead of both.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from streamkit.database.base import Result

__all__ = ["batches_ahead"]

_CANCEL_INTERVAL = 0.1


def batches_ahead(
    result: Result, sizes: Iterator[int], max_bytes: int
) -> Generator[tuple[Any, bool], None, None]:
    """Yield the record batches of a result, each with whether it is known to be the last.

    One batch is read ahead, by a thread that there is only for a result of several. Close the
    generator before the result: that ends the thread, and the statement if it is being read.
    """
    batch = result.record_batch(next(sizes), max_bytes)
    if batch is None:
        return
    if result.finished:
        yield batch, True
        return
    reader = _Reader(result, max_bytes)
    try:
        finished = False
        while batch is not None:
            if not finished:
                reader.begin(next(sizes))
            yield batch, finished
            if finished:
                return
            batch, finished = reader.end()
    finally:
        reader.close()


class _Reader:
    """Reads a result's batches in a thread of its own, one at a time and only when told to."""

    def __init__(self, result: Result, max_bytes: int) -> None:
        self._result = result
        self._max_bytes = max_bytes
        self._wanted: SimpleQueue[int] = SimpleQueue()
        self._read: SimpleQueue[tuple[Any, bool] | BaseException] = SimpleQueue()
        self._reading = False
        self._thread = threading.Thread(target=self._run, name="streamkit-read", daemon=True)
        self._thread.start()

    def begin(self, size: int) -> None:
        """Have the next batch read."""
        self._reading = True
        self._wanted.put(size)

    def end(self) -> tuple[Any, bool]:
        """Wait for it; None is the end of the result. Raises what the result raised."""
        read = self._read.get()
        self._reading = False
        if isinstance(read, BaseException):
            raise read
        return read

    def close(self) -> None:
        """Stop what is being read and wait for the thread's end."""
        while self._reading:
            self._result.cancel()  # may be lost in a race, so repeated
            try:
                self._read.get(timeout=_CANCEL_INTERVAL)
            except Empty:
                continue
            self._reading = False
        self._wanted.put(0)
        self._thread.join()

    def _run(self) -> None:
        while size := self._wanted.get():
            try:
                batch = self._result.record_batch(size, self._max_bytes)
            except BaseException as error:  # whatever it is, it belongs to who waits for the batch
                self._read.put(error)
            else:
                self._read.put((batch, self._result.finished))
