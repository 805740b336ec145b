"""Standard input and files as lines, read in a thread so that the event loop never waits.

The reader stops while its lines are not taken: a server that is away stops the pipe, it does not
fill our memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from streamkit.cli.input.following import Rotated, follow
from streamkit.cli.input.lines import LineSplitter

__all__ = ["file_lines", "stdin_lines"]

CHUNK = 64 * 1024


async def stdin_lines() -> AsyncGenerator[list[str], None]:
    """Yield the lines of standard input as they come, in lists."""
    number = sys.stdin.fileno()

    def chunks(stopped: Callable[[], bool]) -> Iterator[list[str]]:
        splitter = LineSplitter()
        while not stopped() and (data := os.read(number, CHUNK)):
            if lines := splitter.feed(data):
                yield lines
        yield splitter.finish()

    async with aclosing(_from_thread(chunks)) as batches:
        async for lines in batches:
            yield lines


async def file_lines(
    path: Path, *, following: bool, from_end: bool = False
) -> AsyncGenerator[list[str], None]:
    """Yield the lines of a file, in lists; `following` goes on with what is added, for ever.

    Raises OSError if the file cannot be opened.
    """

    def chunks(stopped: Callable[[], bool]) -> Iterator[list[str]]:
        splitter = LineSplitter()
        if not following:
            with path.open("rb", buffering=0) as file:
                while not stopped() and (data := file.read(CHUNK)):
                    if lines := splitter.feed(data):
                        yield lines
        else:
            for data in follow(path, from_end=from_end, stopped=stopped):
                if stopped():
                    break
                lines = splitter.finish() if isinstance(data, Rotated) else splitter.feed(data)
                if lines:
                    yield lines
        yield splitter.finish()

    async with aclosing(_from_thread(chunks)) as batches:
        async for lines in batches:
            yield lines


async def _from_thread(
    make: Callable[[Callable[[], bool]], Iterator[list[str]]],
) -> AsyncGenerator[list[str], None]:
    """Run a blocking generator in a thread, one list ahead of its consumer at most."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[str] | Exception | None] = asyncio.Queue(1)
    stopped = threading.Event()

    def put(item: list[str] | Exception | None) -> None:
        future = asyncio.run_coroutine_threadsafe(queue.put(item), loop)
        while not stopped.is_set():
            try:
                future.result(0.2)
                return
            except TimeoutError:
                if future.done():
                    raise
        future.cancel()

    def read() -> None:
        try:
            for lines in make(stopped.is_set):
                if lines:
                    put(lines)
                if stopped.is_set():
                    return
            put(None)
        except RuntimeError:
            return  # the loop is closed
        except Exception as error:
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
