"""watch-job, jobs, cancel."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from streamkit.cli import exits, options
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, moment
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.output.records import job_object
from streamkit.cli.rendering.printing import JsonArray
from streamkit.cli.session import Session
from streamkit.sanitise import json_text

if TYPE_CHECKING:
    from streamkit.cli.rendering.jobs import JobView
    from streamkit.client import AsyncClient
    from streamkit.generated.streamservice import JobProgress

__all__ = ["register"]

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "lost")
VIEWS = ("pretty", "plain", "json", "jsonl")
LINES_ON_FAILURE = 20
LOOK_EVERY = 1.0
"""Seconds between two looks at all jobs with --watch."""
EARLY = timedelta(seconds=5)
"""A job's first lines may have been written a moment before the server knew of the job."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "watch-job")(_watch_job)
    command(app, "jobs")(_jobs)
    command(app, "cancel")(_cancel)


async def _watch_job(
    session: Session,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB_ID...")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The job that changed last.")] = False,
    old_latest: Annotated[bool, typer.Option("--latest", hidden=True, help="As --newest.")] = False,
    all_running: Annotated[
        bool, typer.Option("--all-running", help="All jobs that run now.")
    ] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Show the job's output as well.")] = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long to wait for an unknown job.")
    ] = "10s",
    timeout: options.Timeout = "",
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="|".join(VIEWS), help="Bars, lines or JSON."),
    ] = "",
) -> int:
    """Watch jobs until they end. The exit code is their outcome.

    0: completed. 1: failed, cancelled or lost. 5: no such job. 124: still running at --timeout.
    """
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    patience = value_of("--wait", duration, wait)
    options.one_of("-o", output, VIEWS, "pretty")
    newest = newest or old_latest
    if sum((newest, all_running, bool(job_ids))) != 1:
        raise UsageError(
            "name a job, or give --newest or --all-running; `streamkit jobs` lists them"
        )
    async with session.client() as client:
        ids = await _chosen(client, job_ids or [], newest=newest)
        if not ids:
            what = "no jobs" if newest else "no running jobs"
            session.note(f"there are {what}; `streamkit run -- COMMAND` starts one")
            return exits.NOT_FOUND if newest else exits.OK
        view = _view(session, output)
        try:
            async with asyncio.timeout(seconds):
                tasks = [
                    asyncio.create_task(_watch(client, job_id, patience, logs, view))
                    for job_id in ids
                ]
                try:
                    ended = await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except TimeoutError:
            view.close()
            session.note(f"still running after {timeout}: {', '.join(ids)}; nothing was stopped")
            return exits.TIMEOUT
        finally:
            view.close()
        failed = [job for job in ended if job.status != "completed"]
        if not logs:
            for job in failed:
                await _last_lines(session, client, job)
        return exits.FAILED if failed else exits.OK


async def _chosen(client: AsyncClient, job_ids: Sequence[str], *, newest: bool) -> list[str]:
    if job_ids:
        return list(dict.fromkeys(job_ids))
    found = await client.jobs(limit=1) if newest else await client.jobs(statuses=("running",))
    return [job.job_id for job in found]


def _view(session: Session, output: str) -> JobView:
    from streamkit.cli.rendering.jobs import BarsView, JsonView, LinesView

    if output == "json":
        array = JsonArray(session)
        return JsonView(array.add, array.close)
    if output == "jsonl":
        return JsonView(lambda record: session.output.line(json_text(record)))
    if output != "plain" and session.output.terminal.animation:
        return BarsView(session.output)
    return LinesView(session.output)


async def _watch(
    client: AsyncClient, job_id: str, patience: float, logs: bool, view: JobView
) -> JobProgress:
    """Show one job until it ends; return its last state."""
    from streamkit.errors import InternalError

    last: JobProgress | None = None
    tail: _Tail | None = None
    try:
        async with client.watch_job(job_id, wait=patience) as states:
            async for job in states:
                last = job
                view.update(job)
                if logs and tail is None:
                    tail = _Tail(client, job, view)
        if tail is not None:
            await tail.finish()
    finally:
        if tail is not None:
            await tail.close()
    if last is None:
        raise InternalError(f"the server ended the watch of {job_id} without a state")
    return last


class _Tail:
    """The output of one job, shown while it runs and completed when it has ended."""

    def __init__(self, client: AsyncClient, job: JobProgress, view: JobView) -> None:
        self._client = client
        self._service = job.service or job.job_id
        self._since = job.created_at - EARLY
        self._view = view
        self._last = 0
        self._task = asyncio.create_task(self._read(follow=True))

    async def finish(self) -> None:
        """Show what is left; a job's output is stored before its end is."""
        await self.close()
        await self._read(follow=False)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, *, follow: bool) -> None:
        from streamkit.client import since

        start = since(self._since)
        async with self._client.logs(self._service, follow=follow, start=start) as entries:
            async for entry in entries:
                if entry.sequence > self._last:
                    self._last = entry.sequence
                    self._view.log(entry)


async def _last_lines(session: Session, client: AsyncClient, job: JobProgress) -> None:
    """After a failure, what the job said last, on standard error."""
    from streamkit.cli.output.records import clock_text

    async with client.logs(job.service or job.job_id, lines=LINES_ON_FAILURE) as entries:
        lines = [
            f"{clock_text(entry.timestamp, 'local')} {entry.level:<5} {entry.message}"
            async for entry in entries
            if entry.timestamp >= job.created_at - EARLY
        ]
    if lines:
        session.note(f"the last {len(lines)} lines of {job.service or job.job_id}:")
        for line in lines:
            session.output.note(line)


async def _jobs(
    session: Session,
    status: Annotated[
        str, typer.Option("--status", metavar="A,B", help=f"Only these: {', '.join(STATUSES)}.")
    ] = "",
    since: options.Since = "",
    last: Annotated[
        int, typer.Option("-n", "--last", metavar="N", min=1, help="The last N.")
    ] = 100,
    old_lines: Annotated[
        int | None, typer.Option("--lines", hidden=True, min=1, help="As --last.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Stay, and show what changes.")
    ] = False,
    timeout: options.Timeout = "",
    output: options.JsonOutput = "pretty",
) -> int:
    """List jobs, the last changed first."""
    statuses = tuple(part.strip() for part in status.split(",") if part.strip())
    if unknown := [part for part in statuses if part not in STATUSES]:
        raise UsageError(f"--status: {unknown[0]!r} is not one of {', '.join(STATUSES)}")
    options.one_of("-o", output, options.JSON_FORMATS)
    start = value_of("--since", moment, since) if since else None
    last = old_lines or last
    async with session.client() as client:
        if watch:
            seconds = value_of("--timeout", duration, timeout) if timeout else None
            ask = functools.partial(client.jobs, statuses=statuses, since=start, limit=last)
            return await _watch_all(session, ask, output, seconds)
        jobs = await client.jobs(statuses=statuses, since=start, limit=last)
    if output == "pretty":
        from streamkit.cli.rendering.console import print_table
        from streamkit.cli.rendering.jobs import JobsTable

        if jobs:
            print_table(session.output, JobsTable(jobs))
        else:
            session.note("no jobs; `streamkit run -- COMMAND` starts one")
        return exits.OK
    texts = [json_text(job_object(job)) for job in jobs]
    if output == "json":
        session.output.line("[" + ",\n ".join(texts) + "]")
    else:
        session.output.text("".join(f"{text}\n" for text in texts))
        session.output.flush()
    return exits.OK


async def _watch_all(
    session: Session,
    ask: Callable[[], Awaitable[list[JobProgress]]],
    output: str,
    seconds: float | None,
) -> int:
    """Show the jobs and what changes in them until somebody has seen enough."""
    from streamkit.cli.rendering.jobs import LinesView, TableView

    view: JobView | TableView
    if output == "pretty" and session.output.terminal.animation:
        view = TableView(session.output)
    elif output == "pretty":
        view = LinesView(session.output)
    else:
        view = _view(session, output)
    session.watch_reader()
    seen: dict[str, int] = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                jobs = await ask()
                if isinstance(view, TableView):
                    view.show(jobs)
                else:
                    for job in reversed(jobs):
                        if seen.get(job.job_id) != job.sequence:
                            view.update(job)
                    seen = {job.job_id: job.sequence for job in jobs}
                await asyncio.sleep(LOOK_EVERY)
    except TimeoutError:
        return exits.TIMEOUT
    finally:
        view.close()


async def _cancel(
    session: Session,
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB_ID...")],
    reason: Annotated[str, typer.Option("--reason", help="Told to the job's worker.")] = "",
) -> int:
    """Ask the worker of a job to stop; a job that has not started is cancelled at once."""
    async with session.client() as client:
        for job_id in job_ids:
            job = await client.cancel_job(job_id, reason)
            if job.status == "cancelled":
                session.note(f"{job_id} is cancelled")
            elif job.status in STATUSES[2:]:
                session.note(f"{job_id} had ended before: {job.status}")
            else:
                session.note(f"{job_id} was asked to stop; `streamkit watch-job {job_id}`")
    return exits.OK
