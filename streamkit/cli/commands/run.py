"""run: any command as a watched job whose output is a log."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration, size
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.cli.input.child import Child

__all__ = ["register"]

NOT_EXECUTABLE = 126
NO_SUCH_COMMAND = 127
FORWARDED = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2")
KILL_AFTER = 10.0
"""Seconds that a cancelled command has between SIGTERM and SIGKILL."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    settings = {"ignore_unknown_options": False, "allow_interspersed_args": False}
    command(app, "run", context_settings=settings)(_run)
    command(app, "deliver")(_deliver)


async def _run(
    session: Session,
    line: Annotated[list[str], typer.Argument(metavar="-- COMMAND...")],
    job: Annotated[
        str, typer.Option("-j", "--job", metavar="ID", help="Else made from the command's name.")
    ] = "",
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="Of its log; else the job's id.")
    ] = "",
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Do not show the output here.")
    ] = False,
    progress: Annotated[
        str,
        typer.Option(
            "--progress-regex",
            metavar="REGEX",
            help="Where the output tells progress: one group is a percentage, two are done and "
            "total.",
        ),
    ] = "",
    total: Annotated[
        int, typer.Option("--total", metavar="N", min=0, help="What one group counts up to.")
    ] = 0,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="End the command then; exit code 124.")
    ] = "",
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Return at once and print the job's id."),
    ] = False,
    pty: Annotated[
        bool, typer.Option("--pty", help="Give the command a terminal to write to.")
    ] = False,
    spool: Annotated[
        str,
        typer.Option(
            "--spool",
            metavar="SIZE",
            help="Disk for the output while the server is away; 0 is none.",
        ),
    ] = "64MB",
) -> int:
    """Run a command as a job: watch it with watch-job, read its output with logs.

    The exit code is the command's own. A server that is away changes nothing for the command: what
    it does not take waits on disk for the next run.
    """
    from streamkit.cli.input.child import Child
    from streamkit.cli.reporting import Reporter
    from streamkit.client.writing.spool import Spool, spool_folder

    try:
        pattern = re.compile(progress) if progress else None
    except re.error as error:
        raise UsageError(f"--progress-regex: {error}") from None
    if pattern is not None and pattern.groups not in (1, 2):
        raise UsageError("--progress-regex needs one or two groups")
    job_id = job or _job_id(line[0])
    _check_names(job_id, service or job_id)
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    limit = value_of("--spool", size, spool)
    name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', job_id)[:40]}-{os.urandom(4).hex()}"
    if detach:
        _detach(session, job_id, line)
        return exits.OK
    kept = Spool(spool_folder(session.server) / name, limit)
    reporter = Reporter(session, job_id, service or job_id, pattern, kept, total=total)
    environ = {"PYTHONUNBUFFERED": "1", **os.environ}
    environ |= {"STREAMKIT_JOB": job_id, "STREAMKIT_SERVER": session.server}
    child = Child(reporter.take, quiet=quiet, terminal=pty, note=session.note)
    # Before there is a command: what comes now is passed on to it when it is there.
    _forward_signals(child)
    try:
        child.start(line, environ)
    except FileNotFoundError:
        session.note(f"{line[0]}: no such command")
        return NO_SUCH_COMMAND
    except OSError as error:
        session.note(f"{line[0]}: {error.strerror}")
        return NOT_EXECUTABLE
    reporting = asyncio.create_task(reporter.run(" ".join(line)))
    ending = _Ending(child)
    stopping = asyncio.create_task(ending.when_cancelled(reporter.cancel_requested))
    timing = asyncio.create_task(ending.after(seconds))
    try:
        code = await child.wait()
        why = f"it was ended after {timeout}" if ending.timed_out else ""
        await reporter.finish(code, why)
        return exits.TIMEOUT if ending.timed_out else code
    finally:
        tasks = (stopping, timing, reporting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept.close()


def _job_id(name: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem).strip("-") or "job"
    return f"{stem[:40]}-{os.urandom(3).hex()}"


async def _deliver(session: Session) -> int:
    """Deliver what `run` kept while the server was away."""
    from streamkit.cli.reporting import deliver_kept

    async with session.client() as client:
        if not await deliver_kept(session, client):
            session.note(f"nothing waits for {session.server}")
    return exits.OK


def _detach(session: Session, job_id: str, line: list[str]) -> None:
    """Start ourselves again, in a session of our own and with nothing to read or show."""
    options = sys.argv[1 : len(sys.argv) - len(line)]
    again = [option for option in options if option not in ("--detach", "--")]
    command = [sys.executable, "-m", "streamkit", *again, "-q", "--job", job_id, "--", *line]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
    )
    process.returncode = 0  # nobody waits for it
    session.output.line(job_id)


def _check_names(job_id: str, service: str) -> None:
    """Refuse before the command runs what the server would refuse while it does."""
    from streamkit.errors import InvalidArgumentError
    from streamkit.generated.streamservice import LogEntry
    from streamkit.handlers.validation import check_job_id, check_log_entries

    try:
        check_job_id(job_id, "--job")
        check_log_entries([LogEntry(service=service)], "log")
    except InvalidArgumentError as error:
        option = "--job" if service == job_id else "--service"
        text = re.sub(r"^(log\[0\]\.service|--job)", option, str(error))
        raise UsageError(text) from None


def _forward_signals(child: Child) -> None:
    """From now on signals are the command's, and we end when it ends."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows has no process groups to think of
        for name in FORWARDED:
            number = getattr(signal, name)
            loop.add_signal_handler(number, child.pass_on, number)
        loop.add_signal_handler(signal.SIGWINCH, child.resized)


class _Ending:
    """Ends the command, first kindly, then not."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.timed_out = False

    async def when_cancelled(self, requested: asyncio.Event) -> None:
        await requested.wait()
        await self._end()

    async def after(self, seconds: float | None) -> None:
        if seconds is not None:
            await asyncio.sleep(seconds)
            self.timed_out = True
            await self._end()

    async def _end(self) -> None:
        self._child.send(signal.SIGTERM)
        await asyncio.sleep(KILL_AFTER)
        self._child.send(signal.SIGKILL)
