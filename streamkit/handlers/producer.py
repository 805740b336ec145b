"""ProducerService: publish updates, write logs, report on jobs.

Every answer means that the journal has stored what was sent. Repeating a request with the same
producer and sequence stores nothing and gives the first answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import betterproto

from streamkit.codec import frame
from streamkit.config import JournalOptions, RequestLimits
from streamkit.errors import InvalidArgumentError, NotFoundError, StoreError, StreamkitError
from streamkit.generated.streamservice import (
    CancelJobRequest,
    JobProgress,
    JobReport,
    ListJobsReply,
    ListJobsRequest,
    LogEntry,
    ProducerServiceBase,
    PublishRequest,
    SequenceRange,
    Update,
    WatchJobsRequest,
    WriteLogsRequest,
    WriteReply,
    WriteRequest,
)
from streamkit.handlers.paging import PAGE_BYTES, place_of, token_of
from streamkit.handlers.pipeline import in_order
from streamkit.handlers.runs import Runs, refused
from streamkit.handlers.validation import (
    check_count,
    check_job_id,
    check_job_report,
    check_log_entries,
    check_reason,
    check_statuses,
    check_updates,
    producer_id,
)
from streamkit.handlers.watching import watch_jobs
from streamkit.journal import Weighed, weight_of
from streamkit.journal.base import Journal, ProducerId
from streamkit.rights import Action
from streamkit.room import Room
from streamkit.transport import Framed, context
from streamkit.transport.server.context import current

__all__ = ["ProducerHandler"]

_NO_ID = ""
_IN_WORK = 4_096
"""Requests of one Write stream that wait for the store."""
_BYTES_IN_WORK = 16 * 1024 * 1024
_REQUEST_COST = 512
"""What a request weighs besides its records."""
_GROUPS = ("updates", "logs", "jobs")
_dictionary = object.__getattribute__
_OPTIONS = JournalOptions()
_MOST_JOBS = RequestLimits().jobs
_JOBS = 100


class ProducerHandler(ProducerServiceBase):
    """Writes to the journal. `options` bound what is in work, over all calls."""

    def __init__(self, *, journal: Journal, options: JournalOptions = _OPTIONS) -> None:
        self._journal = journal
        self._room = Room(options.waiting_bytes, options.arriving_bytes)

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        if not publish_request.updates:
            raise InvalidArgumentError("updates must not be empty")
        return await self._store_alone(
            WriteRequest(producer=publish_request.producer, updates=publish_request.updates)
        )

    async def write_logs(self, write_logs_request: WriteLogsRequest) -> WriteReply:
        if not write_logs_request.entries:
            raise InvalidArgumentError("entries must not be empty")
        return await self._store_alone(
            WriteRequest(producer=write_logs_request.producer, logs=write_logs_request.entries),
            logs_field="entries",
        )

    async def write(  # type: ignore[override]  # ready frames instead of messages
        self, write_request_iterator: AsyncIterator[WriteRequest]
    ) -> AsyncIterator[Framed]:
        """Store many requests at once; the replies come in the requests' order.

        A refused request is told in its reply's `code` and `error` and does not end the stream. A
        store that cannot write ends it: what has no reply may be sent again, it is stored once.
        """
        replies = in_order(
            write_request_iterator,
            self._answer,
            weigh=_weigh,
            limit=_IN_WORK,
            budget=_BYTES_IN_WORK,
            room=self._room,
            apart=_is_mixed,
            short=Runs(self._journal),
        )
        async with aclosing(replies):
            async for ready in replies:
                yield Framed(b"".join(ready), len(ready))

    async def create_job(self, job_report: JobReport) -> JobProgress:
        if not job_report.job_id:
            job_report.job_id = _new_job_id(job_report)
        return await self._report(job_report, create=True)

    async def update_job(self, job_report: JobReport) -> JobProgress:
        return await self._report(job_report)

    async def finish_job(self, job_report: JobReport) -> JobProgress:
        return await self._report(job_report, finish=True)

    async def cancel_job(self, cancel_job_request: CancelJobRequest) -> JobProgress:
        job_id = check_job_id(cancel_job_request.job_id)
        reason = check_reason(cancel_job_request.reason)
        call = context()
        if call.allows(Action.CANCEL_JOBS, job_id):
            return _told(await self._journal.cancel_job(job_id, reason))
        if call.allows(Action.JOBS, job_id):
            call.require(Action.CANCEL_JOBS, job_id)
        # A job that the caller may not even see is answered for as one that is not there.
        with contextlib.suppress(NotFoundError):
            await self._journal.cancel_job(_NO_ID, reason)
        raise NotFoundError(f"no job {job_id!r}")

    async def list_jobs(self, list_jobs_request: ListJobsRequest) -> ListJobsReply:
        since = list_jobs_request.since if list_jobs_request.is_set("since") else None
        limit = min(check_count(list_jobs_request.limit, "limit") or _JOBS, _MOST_JOBS)
        statuses = check_statuses(list_jobs_request.statuses)
        ids = context().narrowed(Action.JOBS)
        if ids is not None and not ids:
            return ListJobsReply()
        kind = f"jobs-{self._journal.epoch}"
        found, more = await self._journal.jobs(
            statuses=statuses,
            since=since,
            limit=limit,
            ids=() if ids is None else ids,
            before=place_of(list_jobs_request.page_token, kind),
            max_bytes=PAGE_BYTES,
        )
        return ListJobsReply(found, token_of(kind, found[-1].sequence) if more else "")

    async def watch_jobs(self, watch_jobs_request: WatchJobsRequest) -> AsyncIterator[JobProgress]:
        """The state of every job that has not ended, then each change; or what a start says."""
        watched = watch_jobs(self._journal, watch_jobs_request)
        async with aclosing(watched):
            async for progress in watched:
                yield progress

    # ---- the work ----

    async def _report(
        self, report: JobReport, *, create: bool = False, finish: bool = False
    ) -> JobProgress:
        check_job_report(report, finish=finish)
        producer_id(report.producer)
        async with self._room.holding(_REQUEST_COST + weight_of([report])):
            [state] = await self._journal.report_jobs([report], create=create)
        return _told(state)

    async def _store_alone(self, request: WriteRequest, logs_field: str = "logs") -> WriteReply:
        async with self._room.holding(_weigh(request)):
            return await self._store(request, logs_field)

    async def _store(self, request: WriteRequest, logs_field: str = "logs") -> WriteReply:
        """Check all of a request, then store its groups. Work on the journal begins at once."""
        producer = producer_id(request.producer)
        updates, logs, jobs = request.updates, request.logs, request.jobs
        if updates:
            check_updates(updates)
        if logs:
            check_log_entries(logs, logs_field)
        for place, report in enumerate(jobs):
            check_job_report(report, f"jobs[{place}].")
            if producer is not None and producer_id(report.producer) is None:
                report.producer = request.producer
        reply = WriteReply(producer_sequence=request.producer.sequence, epoch=self._journal.epoch)
        groups = []
        if updates:
            groups.append(self._store_updates(reply, updates, producer))
        if logs:
            groups.append(self._store_logs(reply, logs, producer))
        if jobs:
            groups.append(self._store_jobs(reply, jobs))
        if len(groups) == 1:
            await groups[0]
        elif groups:
            # All begin at once: a later request must not overtake one of them on its stream.
            await asyncio.gather(*groups)
        return reply

    async def _store_updates(
        self, reply: WriteReply, updates: Sequence[Update], producer: ProducerId | None
    ) -> None:
        stored = await self._journal.append_updates(updates, producer)
        reply.updates = SequenceRange(stored.first, stored.count)

    async def _store_logs(
        self, reply: WriteReply, entries: Sequence[LogEntry], producer: ProducerId | None
    ) -> None:
        stored = await self._journal.append_logs(entries, producer)
        reply.logs = SequenceRange(stored.first, stored.count)

    async def _store_jobs(self, reply: WriteReply, reports: Sequence[JobReport]) -> None:
        states = await self._journal.report_jobs(reports)
        reply.job_sequences = [state.sequence for state in states]
        reply.cancel_requested = [state.job_id for state in states if state.cancel_requested]

    async def _answer(self, request: WriteRequest) -> bytes:
        """`_store`, with a refusal as a reply; a fault of the store ends the stream instead."""
        try:
            call = current()  # None: the handler is used without a server, so without a caller
            if call is not None:
                call.check(request)
            return frame(await self._store(request))
        except StoreError:
            raise
        except StreamkitError as error:
            return refused(request, self._journal.epoch, error)


def _told(state: JobProgress) -> JobProgress:
    """What somebody who changed a job is told of it: all of it only if they may read it."""
    if context().allows(Action.JOBS, state.job_id):
        return state
    return JobProgress(
        job_id=state.job_id,
        status=state.status,
        sequence=state.sequence,
        cancel_requested=state.cancel_requested,
    )


def _weigh(request: WriteRequest) -> int:
    """All that it holds: text, metadata, fields. The journal is handed what was weighed."""
    weight = _REQUEST_COST
    own = _dictionary(request, "__dict__")  # a generated class's own access costs a microsecond
    for name in _GROUPS:
        messages = own.get(name)
        if messages and messages is not betterproto.PLACEHOLDER:
            weighed = own[name] = Weighed(messages)
            weight += weighed.weight
    return weight


def _is_mixed(request: WriteRequest) -> bool:
    return bool(request.updates) + bool(request.logs) + bool(request.jobs) > 1


def _new_job_id(report: JobReport) -> str:
    """An id for a job without one; a repeated request of the same producer gets the same."""
    if not betterproto.serialized_on_wire(report.producer):
        return secrets.token_hex(6)
    named = f"{report.producer.id}/{report.producer.sequence}"
    return hashlib.sha256(named.encode()).hexdigest()[:12]
