"""run: any command as a watched job whose output is a log."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Annotated

import typer

from streamkit.cli.session import Session, UsageError, command

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
) -> int:
    """Run a command as a job: watch it with watch-job, read its output with logs.

    The exit code is the command's own. A server that is away changes nothing for the command.
    """
    from streamkit.cli.input.child import Child
    from streamkit.cli.reporting import Reporter

    try:
        pattern = re.compile(progress) if progress else None
    except re.error as error:
        raise UsageError(f"--progress-regex: {error}") from None
    if pattern is not None and pattern.groups not in (1, 2):
        raise UsageError("--progress-regex needs one or two groups")
    job_id = job or _job_id(line[0])
    reporter = Reporter(session, job_id, service or job_id, pattern)
    environ = {"PYTHONUNBUFFERED": "1", **os.environ}
    environ |= {"STREAMKIT_JOB": job_id, "STREAMKIT_SERVER": session.server}
    try:
        child = Child(line, environ, reporter.take, quiet=quiet)
    except FileNotFoundError:
        session.note(f"{line[0]}: no such command")
        return NO_SUCH_COMMAND
    except OSError as error:
        session.note(f"{line[0]}: {error.strerror}")
        return NOT_EXECUTABLE
    _forward_signals(child.pass_on)
    reporting = asyncio.create_task(reporter.run(" ".join(line)))
    stopping = asyncio.create_task(_stop_when_cancelled(reporter, child))
    try:
        code = await child.wait()
        await reporter.finish(code)
        return code
    finally:
        for task in (stopping, reporting):
            task.cancel()
        await asyncio.gather(stopping, reporting, return_exceptions=True)


def _job_id(name: str) -> str:
    from secrets import token_hex

    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem).strip("-") or "job"
    return f"{stem[:40]}-{token_hex(3)}"


def _forward_signals(pass_on: object) -> None:
    """From now on signals are the command's, and we end when it ends."""
    loop = asyncio.get_running_loop()
    for name in FORWARDED:
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, pass_on, number)  # type: ignore[arg-type]
        except NotImplementedError:  # Windows has no process groups to think of either
            return


async def _stop_when_cancelled(reporter: object, child: object) -> None:
    from streamkit.cli.input.child import Child
    from streamkit.cli.reporting import Reporter

    assert isinstance(reporter, Reporter) and isinstance(child, Child)
    await reporter.cancel_requested.wait()
    child.send(signal.SIGTERM)
    await asyncio.sleep(KILL_AFTER)
    child.send(signal.SIGKILL)
