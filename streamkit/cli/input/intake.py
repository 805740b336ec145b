"""Standard input and files as lines, read in a thread so that the event loop never waits.

The reader stops while its lines are not taken: a server that is away stops the pipe, it does not
fill our memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from pathlib import Path
from typing import TypeVar

from streamkit.cli.input.following import Follower, Note
from streamkit.cli.input.generation import Batch
from streamkit.cli.input.lines import LineSplitter

__all__ = ["file_lines", "followed", "stdin_bytes", "stdin_lines"]

CHUNK = 64 * 1024
INTERVAL = 0.1
"""Seconds between two looks at a file that is quiet."""

T = TypeVar("T")


async def stdin_lines() -> AsyncGenerator[list[str], None]:
    """Yield the lines of standard input as they come, in lists."""
    number = sys.stdin.fileno()

    def chunks(stopped: Callable[[], bool]) -> Generator[list[str], None, None]:
        splitter = LineSplitter()
        while not stopped() and (data := os.read(number, CHUNK)):
            if lines := splitter.feed(data):
                yield lines
        yield splitter.finish()

    async with aclosing(_from_thread(chunks)) as batches:
        async for lines in batches:
            yield lines


async def stdin_bytes(most: int) -> bytes:
    """Standard input to its end, or `most` bytes of it. Cancellation does not wait for the end."""
    number = sys.stdin.fileno()

    def chunks(stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        left = most
        while left and not stopped() and (data := os.read(number, min(left, CHUNK))):
            left -= len(data)
            yield data

    async with aclosing(_from_thread(chunks)) as parts:
        return b"".join([part async for part in parts])


async def file_lines(path: Path) -> AsyncGenerator[list[str], None]:
    """Yield the lines of a file, in lists. Raises OSError if it cannot be opened."""

    def chunks(stopped: Callable[[], bool]) -> Generator[list[str], None, None]:
        splitter = LineSplitter()
        with path.open("rb", buffering=0) as file:
            while not stopped() and (data := file.read(CHUNK)):
                if lines := splitter.feed(data):
                    yield lines
        yield splitter.finish()

    async with aclosing(_from_thread(chunks)) as batches:
        async for lines in batches:
            yield lines


async def followed(follower: Follower) -> AsyncGenerator[Batch | Note, None]:
    """Yield what a follower reads, for ever; it is closed in the end.

    It looks for new files also while nobody takes the lines.
    """

    def chunks(stopped: Callable[[], bool]) -> Generator[Batch | Note, None, None]:
        try:
            while not stopped():
                follower.look()
                if batch := follower.read():
                    yield batch
                else:
                    time.sleep(INTERVAL)
        finally:
            follower.close()

    async with aclosing(_from_thread(chunks, follower.look)) as batches:
        async for batch in batches:
            yield batch


async def _from_thread(
    make: Callable[[Callable[[], bool]], Generator[T, None, None]],
    meanwhile: Callable[[], object] = lambda: None,
) -> AsyncGenerator[T, None]:
    """Run a blocking generator in a thread, one item ahead of its consumer at most.

    `meanwhile` is called a few times a second while the consumer does not take the item.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | Exception | None] = asyncio.Queue(1)
    stopped = threading.Event()

    def put(item: T | Exception | None) -> None:
        future = asyncio.run_coroutine_threadsafe(queue.put(item), loop)
        while not stopped.is_set():
            try:
                future.result(INTERVAL)
                return
            except TimeoutError:
                if future.done():
                    raise
                meanwhile()
        future.cancel()

    def read() -> None:
        try:
            with closing(make(stopped.is_set)) as items:
                for item in items:
                    if item:
                        put(item)
                    if stopped.is_set():
                        return
            put(None)
        except RuntimeError:
            return  # the loop is closed
        except Exception as error:  # whatever it is, the reader raises it
            put(error)

    # A daemon: a read from a terminal or a pipe cannot be interrupted, and nobody is to wait.
    threading.Thread(target=read, name="streamkit-intake", daemon=True).start()
    try:
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item
    finally:
        stopped.set()
