"""A process that serves and does nothing else: its signals, its garbage, its threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["dedicate_process", "first", "overheard", "reuse_memory", "signals"]

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # mallopt's names
_REUSED = 4 * 1024 * 1024
_SPARE = 16 * 1024 * 1024


@contextmanager
def signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call `on_signal` for SIGTERM and SIGINT, where this loop can take signals."""
    loop = asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not in a thread, and not on every system.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, on_signal)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


@contextmanager
def overheard(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call `on_signal` in this loop when SIGTERM or SIGINT comes, and leave the rest to whoever
    takes them, if somebody does. Nothing happens outside of the main thread."""
    loop = asyncio.get_running_loop()
    taken: dict[int, tuple[Any, Any]] = {}

    def listen(number: int) -> None:
        before = signal.getsignal(number)
        if not callable(before):
            return  # nobody takes it, or it is ignored

        def hear(*given: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(on_signal)
            before(*given)

        signal.signal(number, hear)
        taken[number] = (hear, before)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            listen(number)
    try:
        yield
    finally:
        for taken_one, (ours, before) in taken.items():
            if signal.getsignal(taken_one) is ours:
                signal.signal(taken_one, before)


async def first(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run until the first one ends, then cancel the others; all have ended on return."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def dedicate_process() -> None:
    """Set the interpreter up for a process that does nothing but serve; call it once at start.

    What is imported by now lives as long as the process, so the collector need not look at it
    again; and records come and go by the ten thousand without any cycle among them, so it looks
    less often (measured: a quarter of the CPU time of an ingest was the collector's). The loop gets
    the interpreter back from a thread after one millisecond instead of five: a call beside large
    requests that are decoded takes 10 ms instead of 65, and nothing was measured to become slower.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(0.001)
    reuse_memory()


def reuse_memory() -> None:
    """Let the C library keep what was freed for the next messages, as far as 16 MiB.

    glibc gives a megabyte back to the system as soon as it is free, and the system clears each page
    of the next one: with messages of that size most of the time went there (measured: calls of
    1 MiB are more than twice as many). Nothing is done in another C library, nor where the
    environment sets these two up.
    """
    if (
        "MALLOC_MMAP_THRESHOLD_" in os.environ
        or "MALLOC_TRIM_THRESHOLD_" in os.environ
        or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    ):
        return
    import ctypes  # not for those that only import this

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    mallopt(_MMAP_THRESHOLD, _REUSED)
    mallopt(_TRIM_THRESHOLD, _SPARE)
