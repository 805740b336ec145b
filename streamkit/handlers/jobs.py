"""WatchJobProgress: the state of one job at once, then every change, until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from streamkit.errors import NotFoundError
from streamkit.generated.streamservice import JobProgress, JobRequest
from streamkit.handlers.streaming import JournalHandler, batches_of, control_of
from streamkit.handlers.validation import check_job_id, seconds, start_from
from streamkit.journal.base import TERMINAL, Delivery, Record, Selector, Start, Stream
from streamkit.rights import Action
from streamkit.transport import context

__all__ = ["JobsHandler"]

_NO_ID = ""


class JobsHandler(JournalHandler):
    """Serves the journal's jobs. Needs the keyword `journal`."""

    async def watch_job_progress(self, job_request: JobRequest) -> AsyncIterator[JobProgress]:
        """The present state, every later change, and the end after the first terminal status.

        A start other than the default gives the stored changes from there on. An unknown job is
        waited for as long as the request allows; then NotFoundError.
        """
        job_id = check_job_id(job_request.job_id)
        # A job that the caller may not see is looked for as one that cannot be there.
        sought = job_id if context().allows(Action.JOBS, job_id) else _NO_ID
        deadline = asyncio.get_running_loop().time() + seconds(job_request.wait, "wait")
        start = start_from(job_request.start) or Start(last=1)
        batches = batches_of(
            self._journal,
            Selector(Stream.JOBS, (sought,)),
            start,
            follow=True,
            options=job_request.options,
        )
        async with aclosing(batches):
            batch = await anext(batches)
            # Reading has begun, so whatever is not in this state yet will be read.
            state = await self._journal.job(sought)
            known = state is not None
            quiet = True
            while True:
                control = control_of(batch, quiet=quiet)
                quiet = False
                if control is not None:
                    yield JobProgress(job_id=job_id, control=control)
                for entry in batch.items:
                    assert isinstance(entry.message, JobProgress)
                    yield entry.message
                    if entry.message.status in TERMINAL:
                        return
                if state is not None and _is_over(state, batch):
                    if start.after is None or state.sequence > start.after.sequence:
                        yield state
                    return
                known = known or bool(batch.items)
                batch = await (anext(batches) if known else _next_before(deadline, batches, job_id))


def _is_over(state: JobProgress, batch: Delivery[Record]) -> bool:
    """Whether the job had ended and its last change is not to come: passed, or no longer kept."""
    return state.status in TERMINAL and batch.position.sequence >= state.sequence


async def _next_before(
    deadline: float, batches: AsyncGenerator[Delivery[Record], None], job_id: str
) -> Delivery[Record]:
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(batches)
    except TimeoutError:
        raise NotFoundError(
            f"no job {job_id!r}", hint="`streamkit jobs` lists the known ones."
        ) from None
