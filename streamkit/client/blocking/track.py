"""track: a loop that others can watch, in one word."""

from __future__ import annotations

import atexit
import operator
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from streamkit.client.blocking.client import Client
from streamkit.client.writing.job import new_job_id

__all__ = ["track"]

T = TypeVar("T")

_open: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()

_DRAIN = 2.0
"""Seconds that the end of the loop waits for a server that is away."""


def track(
    iterable: Iterable[T],
    *,
    job_id: str = "",
    description: str = "",
    total: int | None = None,
    client: Client | None = None,
    address: str | None = None,
) -> Iterator[T]:
    """Yield the items of `iterable`, reporting the progress as a job.

        for file in streamkit.track(files, description="import"): ...

    The job completes with the loop, fails with the iterable's own error, and counts as cancelled
    when the loop is left early. Reports are throttled and cost the loop next to nothing; a server
    that is away neither stops nor fails it. `total` is taken from the iterable if it knows.
    """
    loop = _loop(iterable, job_id, description, total, client, address)
    _open.add(loop)
    return loop


def _loop(
    iterable: Iterable[T],
    job_id: str,
    description: str,
    total: int | None,
    client: Client | None,
    address: str | None,
) -> Generator[T, None, None]:
    if total is None:
        total = operator.length_hint(iterable, 0)
    with ExitStack() as stack:
        if client is None:
            client = stack.enter_context(Client(address, connect_timeout=_DRAIN))
        job = client.job(
            job_id or new_job_id(),
            total=total,
            step=description,
            required=False,
            drain_timeout=_DRAIN,
        )
        stack.enter_context(job)
        note = job.advance
        try:
            for item in iterable:
                yield item
                note()
        except GeneratorExit:
            job.finish_quietly("cancelled", "the loop was left early")
            raise
        except BaseException as error:
            job.finish_quietly("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            job.finish_quietly("completed")


def _leave_all() -> None:
    """At the end of the program, while there is still somebody to tell: loops left early."""
    for loop in list(_open):
        with suppress(ValueError):  # it is running, in another thread
            loop.close()


atexit.register(_leave_all)
