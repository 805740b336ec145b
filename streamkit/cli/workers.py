"""`serve --workers`: this command as the owner of several processes, and as one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError
from streamkit.cli.later import socket
from streamkit.cli.reconfiguring import reconfigured
from streamkit.cli.session import Session
from streamkit.supervision import supervised

if TYPE_CHECKING:
    from streamkit.server import Server
    from streamkit.workers.member import Member

__all__ = ["inherited", "serve_workers"]


def inherited(context: typer.Context) -> Member | None:
    """What this process was started as, if by an owner, whose options then count: its own were
    not given, and what the owner read from files may have changed."""
    if "_STREAMKIT_WORKER" not in os.environ:
        return None
    from streamkit.workers.member import Member

    member = Member.inherited()
    if member is not None:
        sources: Any = type(context.get_parameter_source("app"))
        for name, (value, source) in member.options.items():
            context.params[name] = value
            context.set_parameter_source(name, sources[source])
    return member


def _options(context: typer.Context) -> dict[str, Any]:
    """Every option with its value and where that comes from."""
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        found[name] = (value, "DEFAULT" if source is None else source.name)
    return found


async def serve_workers(
    session: Session,
    context: typer.Context,
    server: Server,
    count: int,
    greet: Callable[[int], None],
    settings: Callable[[typer.Context], dict[str, Any]],
) -> int:
    """Serve by so many processes, 0 for one a core, until a signal comes."""
    if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
        raise UsageError("--workers does not work on this system")
    from streamkit.process import dedicate_process
    from streamkit.workers.owner import Owner, WorkerFailedError

    count = count or _cores()
    command = [sys.executable, "-m", "streamkit", "serve", "--config", os.devnull]
    if session.debug:
        command.append("--debug")
    owner = Owner(server, count, command, _options(context), session.note)
    try:
        async with owner:
            dedicate_process()
            greet(count)
            status = f"serves on {server.address} by {count} workers"
            async with (
                reconfigured(context, server, settings, owner.reload),
                supervised(status, partial(setattr, owner, "on_drain")),
            ):
                await owner.serve()
    except WorkerFailedError as failed:  # which it has told itself
        return failed.code if failed.code > 0 else exits.FAILED
    session.note("stopped")
    return exits.OK


def _cores() -> int:
    """Those that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return (len(usable(0)) if usable is not None else os.cpu_count()) or 1
