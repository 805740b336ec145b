"""WatchJobs: every job at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from streamkit.generated.streamservice import JobProgress, WatchJobsRequest
from streamkit.handlers.paging import PAGE_BYTES
from streamkit.handlers.streaming import batches_of, control_of
from streamkit.handlers.validation import job_patterns, start_from
from streamkit.journal.base import TERMINAL, Journal, Selector, Start, Stream
from streamkit.patterns import Globs

__all__ = ["watch_jobs"]

_LIVE = ("pending", "running")
_MOST_LIVE = 10_000
"""Jobs whose present state is sent; of the others, the next change is."""


async def watch_jobs(
    journal: Journal, request: WatchJobsRequest
) -> AsyncGenerator[JobProgress, None]:
    """Yield the states of jobs as they change, of those whose ids a pattern of the request finds;
    without patterns, of all."""
    wanted = _filter(job_patterns(request.jobs) or None)
    start = start_from(request.start)
    batches = batches_of(
        journal, Selector(Stream.JOBS), start or Start(), follow=True, options=request.options
    )
    shown: dict[str, int] = {}
    quiet = True
    async with aclosing(batches):
        async for batch in batches:
            if quiet and start is None:
                # Reading has begun, so whatever is not in these states yet will be read.
                async with aclosing(_live_jobs(journal)) as states:
                    async for state in states:
                        if wanted(state.job_id):
                            shown[state.job_id] = state.sequence
                            yield state
            control = control_of(batch, quiet=quiet)
            quiet = False
            if control is not None:
                yield JobProgress(control=control)
            for entry in batch.items:
                progress = entry.message
                assert isinstance(progress, JobProgress)
                job = progress.job_id
                if progress.sequence <= shown.get(job, 0) or not wanted(job):
                    continue
                if progress.status in TERMINAL:
                    shown.pop(job, None)
                yield progress


async def _live_jobs(journal: Journal) -> AsyncGenerator[JobProgress, None]:
    """Page by page: a job that changes meanwhile may be left out, and is read as a change."""
    left, before = _MOST_LIVE, None
    while left > 0:
        found, more = await journal.jobs(
            statuses=_LIVE, limit=left, before=before, max_bytes=PAGE_BYTES
        )
        for state in found:
            yield state
        if not more:
            return
        left -= len(found)
        before = found[-1].sequence


def _filter(patterns: Sequence[str] | None) -> Callable[[str], bool]:
    """What finds the names that a pattern finds; None: every name."""
    if patterns is None:
        return lambda _: True
    globs: Globs[bool] = Globs()
    for pattern in patterns:
        globs.add(pattern, True)
    return globs.matches
